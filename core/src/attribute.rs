//! Attributes: what a tenant declares about its documents so that questions can be narrowed to some of them.
//!
//! Each has a name and a kind in the tenant's profile, a value in a document's record, and the same value under its plain
//! name in the document's sidecar. Not here: sidecars (`tenant-admin`) and filters (`query-handler`).

use std::fmt;

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization as _;

/// The most attributes that a profile declares: a sidecar holds 1 KB, and each takes some 80 bytes beside its value.
pub const MAX_ATTRIBUTES: usize = 10;

/// The most characters of a text.
const MAX_TEXT: usize = 100;
/// The largest number either way: to here every integer survives JSON and a 64-bit float (RFC 8259, 6).
const LARGEST: f64 = 9_007_199_254_740_991.0;
/// The smallest number beside zero. With it a number has at most 38 digits, which is what DynamoDB keeps
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html>).
const SMALLEST: f64 = 1e-9;
/// Sidecars have these keys already. The others that we write there have capital letters, Bedrock's own a hyphen.
const RESERVED: [&str; 2] = ["audience", "title"];

/// An attribute's name: `[a-z][a-z0-9_]{0,31}`, and none of the keys that every sidecar has.
///
/// It is a key of the sidecar, so the grammar is what keeps a declared attribute from being the tenant's id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct AttributeName(String);

impl AttributeName {
    /// Reads a name; `None` if it does not follow the grammar or is reserved.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=32).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            && !RESERVED.contains(&text);
        fits.then(|| Self(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AttributeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for AttributeName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?)
            .ok_or_else(|| serde::de::Error::custom("not an attribute's name"))
    }
}

/// What an attribute's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttributeKind {
    /// Texts.
    String,
    /// Numbers.
    Number,
    /// Yes or no.
    Boolean,
}

impl AttributeKind {
    /// The kind of that wire form.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "string" => Some(Self::String),
            "number" => Some(Self::Number),
            "boolean" => Some(Self::Boolean),
            _ => None,
        }
    }
}

/// An attribute as a profile declares it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// Its name.
    pub name: AttributeName,
    /// What its values are.
    pub kind: AttributeKind,
}

/// A value of an attribute. What is deserialised follows the rules of each kind, wherever it comes from: so a document's
/// value and a question's compare equal if people would say that they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, try_from = "Unverified")]
pub enum AttributeValue {
    /// A text of 1 to 100 characters in NFC, without control characters and not only of blanks.
    String(String),
    /// A number.
    Number(Number),
    /// Yes or no.
    Boolean(bool),
}

impl AttributeValue {
    /// The value that `text` is.
    ///
    /// # Errors
    /// It breaks the rules of [`AttributeValue::String`].
    pub fn text(text: &str) -> Result<Self, InvalidValue> {
        let text: String = text.nfc().collect();
        if !(1..=MAX_TEXT).contains(&text.chars().count()) {
            return Err(InvalidValue("1 to 100 characters"));
        }
        if text.chars().any(char::is_control) || text.trim().is_empty() {
            return Err(InvalidValue("no control characters, and not only blanks"));
        }
        Ok(Self::String(text))
    }

    /// The value that `number` is.
    ///
    /// # Errors
    /// It breaks the rules of [`Number`].
    pub fn number(number: f64) -> Result<Self, InvalidValue> {
        Number::new(number)
            .map(Self::Number)
            .ok_or(InvalidValue("0, or from 1e-9 to 9007199254740991 either way"))
    }

    /// What kind of value it is.
    pub fn kind(&self) -> AttributeKind {
        match self {
            Self::String(_) => AttributeKind::String,
            Self::Number(_) => AttributeKind::Number,
            Self::Boolean(_) => AttributeKind::Boolean,
        }
    }
}

/// A value that breaks a rule; it says which, and never the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(&'static str);

/// A value as it arrives.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a string, a number or a boolean")]
enum Unverified {
    Boolean(bool),
    Number(f64),
    String(String),
}

impl TryFrom<Unverified> for AttributeValue {
    type Error = InvalidValue;

    fn try_from(value: Unverified) -> Result<Self, InvalidValue> {
        match value {
            Unverified::Boolean(value) => Ok(Self::Boolean(value)),
            Unverified::Number(value) => Self::number(value),
            Unverified::String(value) => Self::text(&value),
        }
    }
}

/// A number: zero, or from 1e-9 to 2^53 − 1 either way. It is finite, so two are equal or not.
///
/// A fraction is kept to 15 significant digits. Readers of JSON may be off by one in the digit after those, and a number
/// that came back from a document must still find the document.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Number(f64);

// Never NaN, so equality is reflexive.
impl Eq for Number {}

impl Number {
    /// The number, if it is within the bounds. There is one zero.
    pub fn new(number: f64) -> Option<Self> {
        if number == 0.0 {
            return Some(Self(0.0));
        }
        if !(SMALLEST..=LARGEST).contains(&number.abs()) {
            return None;
        }
        if number.fract() == 0.0 {
            return Some(Self(number));
        }
        format!("{number:.14e}").parse().ok().map(Self)
    }

    /// The number.
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl Serialize for Number {
    /// As an integer where it is one: `2024` and not `2024.0`.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53 fits")]
        if self.0.fract() == 0.0 {
            serializer.serialize_i64(self.0 as i64)
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn value(json: &str) -> Option<AttributeValue> {
        serde_json::from_str(json).ok()
    }

    #[test]
    fn a_name_can_be_no_key_that_we_write() {
        for good in ["a", "season", "air_date", "x2__", &"a".repeat(32)] {
            assert!(AttributeName::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "_a",
            "2a",
            "Season",
            "tenantId",
            "documentId",
            "audience",
            "title",
            "x-amz-bedrock-kb-source-uri",
            "a.b",
            "a b",
            "é",
            &"a".repeat(33),
        ] {
            assert!(AttributeName::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_value_is_what_json_says() {
        assert_eq!(value("true"), Some(AttributeValue::Boolean(true)));
        assert_eq!(value("1"), Some(AttributeValue::number(1.0).unwrap()));
        assert_eq!(value("1.0"), value("1"));
        assert_eq!(value("-0.0"), value("0"));
        assert_eq!(value("\"1\""), Some(AttributeValue::String("1".to_owned())));
        // One text, however it is spelt.
        assert_eq!(value("\"Gro\u{308}ße\""), value("\"Größe\""));
        for bad in [
            "null",
            "[]",
            "{}",
            "\"\"",
            "\" \"",
            "\"a\\nb\"",
            "1e300",
            "1e-300",
            "9007199254740992",
        ] {
            assert_eq!(value(bad), None, "{bad}");
        }
        assert!(AttributeValue::text(&"é".repeat(100)).is_ok());
        assert!(AttributeValue::text(&"é".repeat(101)).is_err());
        assert!(AttributeValue::number(f64::NAN).is_err());
        assert!(AttributeValue::number(f64::INFINITY).is_err());
    }

    #[test]
    fn whole_numbers_are_written_as_such() {
        let write = |number| serde_json::to_string(&AttributeValue::number(number).unwrap()).unwrap();
        assert_eq!(write(2024.0), "2024");
        assert_eq!(write(-2.5), "-2.5");
        assert_eq!(write(-LARGEST), "-9007199254740991");
    }

    proptest! {
        #[test]
        fn a_record_keeps_values_as_they_were(number in -1e16..1e16, scale in 0..25_i32, text in "\\PC{1,100}", flag: bool) {
            let Some(number) = Number::new(number / 10_f64.powi(scale)) else { return Ok(()) };
            let Ok(text) = AttributeValue::text(&text) else { return Ok(()) };
            let values: BTreeMap<AttributeName, AttributeValue> = [
                ("a", AttributeValue::Number(number)),
                ("b", text),
                ("c", AttributeValue::Boolean(flag)),
            ]
            .into_iter()
            .map(|(name, value)| (AttributeName::parse(name).unwrap(), value))
            .collect();
            let item: serde_dynamo::Item = serde_dynamo::to_item(&values).unwrap();
            prop_assert_eq!(&serde_dynamo::from_item::<_, BTreeMap<AttributeName, AttributeValue>>(item).unwrap(), &values);
            let json = serde_json::to_string(&values).unwrap();
            prop_assert_eq!(&serde_json::from_str::<BTreeMap<AttributeName, AttributeValue>>(&json).unwrap(), &values);
        }
    }
}
