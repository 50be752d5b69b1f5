//! The uid of an object as the key of a table, without a heap allocation.

use std::fmt;

use uuid::{Uuid, fmt::Hyphenated};

/// A uid. Kubernetes sets UUIDs; any other text is kept as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UidKey {
    /// A UUID in the form that Kubernetes writes.
    Uuid([u8; 16]),
    /// Any other text.
    Text(Box<str>),
}

impl From<&str> for UidKey {
    fn from(uid: &str) -> Self {
        let uuid = Uuid::try_parse(uid).ok();
        let is_canonical = |uuid: &Uuid| uuid.hyphenated().encode_lower(&mut [0; Hyphenated::LENGTH]) == uid;
        uuid.filter(is_canonical).map_or_else(|| Self::Text(uid.into()), |uuid| Self::Uuid(uuid.into_bytes()))
    }
}

impl fmt::Display for UidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(bytes) => Uuid::from_bytes(*bytes).fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_texts_have_different_keys() {
        let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        let texts = [uuid, &uuid.to_uppercase(), &uuid.replace('-', ""), &format!("{{{uuid}}}"), "u", ""];
        let keys = texts.map(UidKey::from);
        assert!(matches!(keys[0], UidKey::Uuid(_)));
        for (index, key) in keys.iter().enumerate() {
            assert_eq!(key.to_string(), texts[index]);
            assert_eq!(keys.iter().position(|other| other == key), Some(index), "{}", texts[index]);
        }
    }
}
