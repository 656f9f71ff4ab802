//! An object that is carried: its members in their order, the ones that taskd does not know among them.

use super::{Json, Raw, build::Object};

/// The members of an object, each name once, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, Raw)>);

impl Fields {
    /// The members, if it is an object; of two with one name the last, as in Python.
    #[must_use]
    pub fn of(json: Json<'_>) -> Option<Self> {
        let entries = json.entries()?;
        // A name at a time would take n² comparisons of what a peer sent.
        let mut place = std::collections::BTreeMap::new();
        let mut found: Vec<(String, Raw)> = Vec::with_capacity(entries.len());
        for (name, value) in entries {
            let at = *place.entry(name.clone()).or_insert(found.len());
            match found.get_mut(at) {
                Some(there) => there.1 = value.to_raw(),
                None => found.push((name, value.to_raw())),
            }
        }
        Some(Self(found))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The members in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Json<'_>)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.json()))
    }

    /// The member of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Json<'_>> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.json())
    }

    /// The member of this name, unless it is null.
    #[must_use]
    pub fn some(&self, name: &str) -> Option<Json<'_>> {
        self.get(name).filter(|value| !value.is_null())
    }

    /// The member of this name, where it is a string.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name)?.as_text()
    }

    /// Sets a member: in its place where it exists, else behind the others.
    pub fn set(&mut self, name: &str, value: Raw) {
        match self.0.iter_mut().find(|(key, _)| key == name) {
            Some(there) => there.1 = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Takes a member out.
    pub fn take(&mut self, name: &str) -> Option<Raw> {
        let at = self.0.iter().position(|(key, _)| key == name)?;
        Some(self.0.remove(at).1)
    }

    /// Keeps the members whose names pass.
    #[must_use]
    pub fn filtered(&self, keep: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|(name, _)| keep(name)).cloned().collect())
    }

    /// The object.
    #[must_use]
    pub fn to_raw(&self) -> Raw {
        let mut object = Object::new();
        for (name, value) in &self.0 {
            object.put(name, value.text());
        }
        object.done()
    }
}

impl FromIterator<(String, Raw)> for Fields {
    fn from_iter<I: IntoIterator<Item = (String, Raw)>>(members: I) -> Self {
        Self(members.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_and_their_text() {
        let text = r#"{"b": NaN, "a": [1,  2], "b": 1e400}"#;
        let mut fields = Fields::of(Json::parse(text).unwrap()).unwrap();
        assert_eq!(fields.to_raw().text(), r#"{"b": 1e400, "a": [1,  2]}"#);
        fields.set("c", Raw::of_bool(true));
        fields.set("b", Raw::null());
        assert_eq!(fields.take("a").unwrap().text(), "[1,  2]");
        assert_eq!(fields.to_raw().text(), r#"{"b": null, "c": true}"#);
        assert!(fields.some("b").is_none() && fields.get("b").is_some());
    }
}
