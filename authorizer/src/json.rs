//! JSON as a token may hold it: one object, read strictly.
//!
//! serde_json lets the last of two equal members win, and so does every library that a proxy or an auditor may use,
//! each in its own way: two readers of one token then see two tenants. Here a second member of one name is an error at
//! any level. Not here: JSON of anybody else, such as key sets, where leniency harms nobody.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How deep objects and arrays may nest, the outermost object counted. Claims need two or three levels; the bound keeps
/// hostile nesting from costing more than the bytes that carry it.
const MAX_DEPTH: usize = 16;

/// Reads one JSON object that fills `bytes` but for blanks around it.
///
/// `None` if the bytes are not UTF-8 JSON, not an object, name a member twice, nest too deep or go on after the object.
pub fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: MAX_DEPTH }.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    match value {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

/// Builds a [`Value`] as serde_json does, but for the rules of this module.
#[derive(Clone, Copy)]
struct Strict {
    /// Levels of nesting that are left.
    depth: usize,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("nested too deep"))?;
        Ok(Self { depth })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate members")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = elements.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut members = Map::new();
        while let Some(Name(name)) = entries.next_key()? {
            let value = entries.next_value_seed(inner)?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a member stands twice"));
            }
        }
        Ok(Value::Object(members))
    }
}

/// A member's name with its escapes resolved, so that `"iss"` and `"\u0069ss"` are one name.
struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_read_as_serde_json_reads_it() {
        let text = r#" {"a":[1,-2,3.5,true,null,"x"],"b":{"c":{"d":18446744073709551615}},"\u0065":"\n"} "#;
        assert_eq!(
            Value::Object(object(text.as_bytes()).unwrap()),
            serde_json::from_str::<Value>(text).unwrap()
        );
        assert_eq!(Value::Object(object(b"{}").unwrap()), json!({}));
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"{"a":[{"b":1,"b":2}]}"#,
            r#"{"a":1}x"#,
            r#"{"a":1}{"a":2}"#,
            "{\"a\":1}\0",
            "\u{feff}{}",
            r#"{"a":NaN}"#,
            r#"{"a":1e999}"#,
            r#"{"a":Infinity}"#,
            r#"{"a":"\ud800"}"#,
            "{\"a\":\"\n\"}",
            r#"{"a":1,}"#,
            r#"{'a':1}"#,
            r#"{"a":1 /* b */}"#,
            "[]",
            "1",
            "\"{}\"",
            "null",
            "",
            "{",
        ] {
            assert_eq!(object(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), None);
        assert_eq!(object(b"{\"\xc3\x28\":1}"), None);
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(object(nested(MAX_DEPTH).as_bytes()).is_some());
        assert!(object(nested(MAX_DEPTH + 1).as_bytes()).is_none());
        assert!(object(nested(4000).as_bytes()).is_none());
        assert!(object("{\"a\":".repeat(4000).as_bytes()).is_none());
    }
}
