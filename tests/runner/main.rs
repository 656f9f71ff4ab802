#[test]
fn zz() {
    println!("{:?} {:?}", std::fs::read_link("/proc/thread-self"), std::process::id());
}
