//! YAML documents as [`serde_json::Value`]: the template and the contract.
//!
//! CloudFormation's short forms (`!Ref`, `!Sub`, `!GetAtt`, …) become their long form (`{"Ref": …}`, `{"Fn::Sub": …}`),
//! so that whoever reads a document knows one form only. Nothing is evaluated here: see [`crate::template`].
//!
//! Strict where a laxer reading could differ from what AWS reads: an unknown tag, a duplicate key, a merge key (`<<`) and a
//! second document in one file are errors that name the line.

use std::fmt;
use std::path::{Path, PathBuf};

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use serde_json::{Map, Number, Value};

/// Whether CloudFormation's short forms may stand in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShortForm {
    /// They are turned into their long form, as in a template.
    Accepted,
    /// They are errors, as in a file that `AWS::Include` pulls in: its snippets must use the long form.
    /// Source: AWS CloudFormation User Guide, "`AWS::Include` transform", considerations.
    Refused,
}

/// Why a document could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The file could not be opened or is not UTF-8.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is not a document that we accept.
    #[error("{place}: {problem}")]
    Invalid {
        /// Where.
        place: Place,
        /// What is wrong there, in words.
        problem: String,
    },
}

/// A line of a document; prints as `name:line`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file's path, or the name that the caller gave to the text.
    pub document: String,
    /// Counted from one.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.document, self.line)
    }
}

/// Reads the file at `path`.
///
/// # Errors
/// When the file can't be read, or [`parse`] refuses its text.
pub fn load(path: &Path, short_form: ShortForm) -> Result<Value, DocumentError> {
    let text = std::fs::read_to_string(path).map_err(|source| DocumentError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    parse(&path.display().to_string(), &text, short_form)
}

/// Turns YAML text into a value; `name` is used in errors only.
///
/// # Errors
/// When the text is not exactly one YAML document, or holds a tag, key or number that JSON or CloudFormation doesn't know.
pub fn parse(name: &str, text: &str, short_form: ShortForm) -> Result<Value, DocumentError> {
    let reader = Reader { name, short_form };
    let documents = MarkedYaml::load_from_str(text)
        .map_err(|error| reader.invalid(error.marker().line(), error.info().to_owned()))?;
    match documents.as_slice() {
        [document] => reader.value(document),
        [] => Err(reader.invalid(1, "the document is empty".to_owned())),
        [_, second, ..] => Err(reader.invalid(
            second.span.start.line(),
            "a second document starts here; one file is one document".to_owned(),
        )),
    }
}

/// Tags that are `Fn::` and their own name in the long form. What the stack can evaluate is the template's matter.
const FUNCTION_TAGS: [&str; 18] = [
    "And",
    "Base64",
    "Cidr",
    "Equals",
    "FindInMap",
    "ForEach",
    "GetAZs",
    "GetAtt",
    "If",
    "ImportValue",
    "Join",
    "Length",
    "Not",
    "Or",
    "Select",
    "Split",
    "Sub",
    "Transform",
];

struct Reader<'a> {
    name: &'a str,
    short_form: ShortForm,
}

impl Reader<'_> {
    fn invalid(&self, line: usize, problem: String) -> DocumentError {
        DocumentError::Invalid {
            place: Place {
                document: self.name.to_owned(),
                line,
            },
            problem,
        }
    }

    fn value(&self, node: &MarkedYaml<'_>) -> Result<Value, DocumentError> {
        let line = node.span.start.line();
        match &node.data {
            YamlData::Value(scalar) => self.scalar(scalar, line),
            YamlData::Sequence(items) => items.iter().map(|item| self.value(item)).collect(),
            YamlData::Mapping(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    let key_line = key.span.start.line();
                    let key = self.key(key)?;
                    let value = self.value(value)?;
                    // `200` and `"200"` are two keys to YAML and one to JSON.
                    if map.insert(key.clone(), value).is_some() {
                        return Err(self.invalid(key_line, format!("the key `{key}` stands here for the second time")));
                    }
                }
                Ok(Value::Object(map))
            }
            YamlData::Tagged(tag, inner) => {
                if tag.handle != "!" {
                    return Err(self.invalid(line, format!("unknown tag `{tag}`")));
                }
                self.tagged(&tag.suffix, inner, line)
            }
            YamlData::Representation(..) | YamlData::Alias(_) | YamlData::BadValue => {
                Err(self.invalid(line, "not a value: an empty document or an unknown alias".to_owned()))
            }
        }
    }

    fn tagged(&self, tag: &str, inner: &MarkedYaml<'_>, line: usize) -> Result<Value, DocumentError> {
        let long = match tag {
            "Ref" | "Condition" => tag.to_owned(),
            known if FUNCTION_TAGS.contains(&known) => format!("Fn::{known}"),
            unknown => return Err(self.invalid(line, format!("unknown tag `!{unknown}`"))),
        };
        if self.short_form == ShortForm::Refused {
            return Err(self.invalid(
                line,
                format!("`!{tag}` is a short form, which an included file may not use: write `{long}`"),
            ));
        }
        let argument = match self.value(inner)? {
            Value::String(path) if tag == "GetAtt" => match path.split_once('.') {
                Some((resource, attribute)) => Value::from(vec![resource, attribute]),
                None => return Err(self.invalid(line, format!("`!GetAtt {path}` names no attribute"))),
            },
            other => other,
        };
        Ok(Value::Object(Map::from_iter([(long, argument)])))
    }

    fn scalar(&self, scalar: &Scalar<'_>, line: usize) -> Result<Value, DocumentError> {
        Ok(match scalar {
            Scalar::Null => Value::Null,
            Scalar::Boolean(value) => Value::Bool(*value),
            Scalar::Integer(value) => Value::from(*value),
            Scalar::FloatingPoint(value) => Number::from_f64(value.into_inner())
                .map(Value::Number)
                .ok_or_else(|| self.invalid(line, format!("{value} is not a number that JSON knows")))?,
            Scalar::String(value) => Value::String(value.clone().into_owned()),
        })
    }

    /// A mapping's key. Numbers are the status codes of a contract.
    fn key(&self, node: &MarkedYaml<'_>) -> Result<String, DocumentError> {
        let line = node.span.start.line();
        match &node.data {
            YamlData::Value(Scalar::String(key)) if key == "<<" => {
                Err(self.invalid(line, "CloudFormation knows no merge keys (`<<`)".to_owned()))
            }
            YamlData::Value(Scalar::String(key)) => Ok(key.clone().into_owned()),
            YamlData::Value(Scalar::Integer(key)) => Ok(key.to_string()),
            YamlData::Value(Scalar::Boolean(key)) => Ok(key.to_string()),
            _ => Err(self.invalid(line, "a key must be a string; quote it".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(text: &str) -> Value {
        parse("t.yaml", text, ShortForm::Accepted).unwrap()
    }

    fn refusal(text: &str) -> String {
        parse("t.yaml", text, ShortForm::Accepted).unwrap_err().to_string()
    }

    #[test]
    fn short_forms_become_long_forms() {
        assert_eq!(
            template(
                "a: !Ref X\nb: !Sub '${X}-y'\nc: !GetAtt X.Arn.Part\nd: !Join ['-', [!Ref X, b]]\n\
                 e: !If [C, 1, !Ref 'AWS::NoValue']\nf: !Condition C\ng: !Not [!Equals [a, b]]\nh: !GetAtt [X, Arn]\n\
                 i: !Sub ['${Y}', {Y: !Ref X}]"
            ),
            json!({
                "a": {"Ref": "X"},
                "b": {"Fn::Sub": "${X}-y"},
                "c": {"Fn::GetAtt": ["X", "Arn.Part"]},
                "d": {"Fn::Join": ["-", [{"Ref": "X"}, "b"]]},
                "e": {"Fn::If": ["C", 1, {"Ref": "AWS::NoValue"}]},
                "f": {"Condition": "C"},
                "g": {"Fn::Not": [{"Fn::Equals": ["a", "b"]}]},
                "h": {"Fn::GetAtt": ["X", "Arn"]},
                "i": {"Fn::Sub": ["${Y}", {"Y": {"Ref": "X"}}]},
            })
        );
    }

    #[test]
    fn a_tag_may_stand_on_a_block_mapping_and_inside_a_sequence() {
        assert_eq!(
            template(
                "Body: !Transform\n  Name: AWS::Include\n  Parameters:\n    Location: x.yaml\nlist:\n  - !Ref A\n"
            ),
            json!({
                "Body": {"Fn::Transform": {"Name": "AWS::Include", "Parameters": {"Location": "x.yaml"}}},
                "list": [{"Ref": "A"}],
            })
        );
    }

    #[test]
    fn scalars_keep_their_type_and_status_codes_become_keys() {
        assert_eq!(
            template(
                "200: {a: 1, b: 1.5, c: true, d: null, e: ~, f: '1', g: 2012-10-17, h: no}\n\"404\": >-\n  one\n  two\n"
            ),
            json!({
                "200": {"a": 1, "b": 1.5, "c": true, "d": null, "e": null, "f": "1", "g": "2012-10-17", "h": "no"},
                "404": "one two",
            })
        );
    }

    #[test]
    fn an_unknown_tag_is_named_with_its_line() {
        assert_eq!(refusal("a: 1\nb:\n  c: !Reff X\n"), "t.yaml:3: unknown tag `!Reff`");
        assert_eq!(refusal("a: 1\nb: !Frob {x: 1}\n"), "t.yaml:2: unknown tag `!Frob`");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        assert!(refusal("a: 1\na: 2\n").starts_with("t.yaml:2: "));
        assert!(refusal("200: 1\n'200': 2\n").contains("second time"));
        assert!(refusal("<<: {a: 1}\n").contains("merge keys"));
        assert!(refusal("a: 1\n---\nb: 1\n").contains("second document"));
        assert!(refusal("1.5: x\n").contains("quote it"));
        assert!(refusal("a: .inf\n").contains("JSON"));
        assert!(refusal("a: !GetAtt X\n").contains("names no attribute"));
        assert!(refusal("").contains("empty"));
        assert!(refusal("a: [1\n").starts_with("t.yaml:"));
    }

    #[test]
    fn an_included_file_may_not_use_short_forms() {
        let error = parse("c.yaml", "a:\n  b: !Ref X\n", ShortForm::Refused).unwrap_err();
        assert_eq!(
            error.to_string(),
            "c.yaml:2: `!Ref` is a short form, which an included file may not use: write `Ref`"
        );
        assert_eq!(
            parse("c.yaml", "a: {Fn::Sub: '${X}'}", ShortForm::Refused).unwrap(),
            json!({"a": {"Fn::Sub": "${X}"}})
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load(Path::new("/nowhere/t.yaml"), ShortForm::Accepted).unwrap_err();
        assert!(error.to_string().starts_with("/nowhere/t.yaml: "), "{error}");
    }
}
