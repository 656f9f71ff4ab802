function joins.by_id() return nil end
function joins.ended() end
function joins.may_renew() return nil end
function joins.renewed() end
function joins.sweep(now, left) return left end
function joins.forget(now, count, left) return left end
function joins.release() end
function joins.told() return '' end
