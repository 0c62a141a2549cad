//! The template with the contract in place of its include.
//!
//! A linter that sees the include only accepts a contract which names a function that doesn't exist. CloudFormation puts
//! the included file where the `Fn::Transform` stands, and so does this, as text: both are YAML, and the linter's line
//! numbers then point into something that can be read.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// Replaces the one `Fn::Transform` of `AWS::Include` by what it names; `read` is given the location as written.
///
/// # Errors
/// If there is not exactly one include, if it has no location, or if `read` fails.
pub fn expand(template: &str, read: impl Fn(&Path) -> anyhow::Result<String>) -> anyhow::Result<String> {
    let mut expanded = String::new();
    let mut lines = template.lines().peekable();
    let mut includes = 0;
    while let Some(line) = lines.next() {
        if line.trim() != "Fn::Transform:" {
            expanded.push_str(line);
            expanded.push('\n');
            continue;
        }
        let margin = indentation(line);
        let mut location = None;
        while let Some(inner) = lines.next_if(|next| next.trim().is_empty() || indentation(next) > margin) {
            if let Some((key, value)) = inner.trim().split_once(':') {
                match (key, value.trim()) {
                    ("Name", "AWS::Include") => includes += 1,
                    ("Name", other) => bail!("the transform `{other}` is not an include"),
                    ("Location", path) => location = Some(PathBuf::from(path)),
                    _ => {}
                }
            }
        }
        let location = location.context("an include without a location")?;
        for included in read(&location)?.lines() {
            if !included.is_empty() {
                expanded.push_str(&" ".repeat(margin));
                expanded.push_str(included);
            }
            expanded.push('\n');
        }
    }
    if includes != 1 {
        bail!("{includes} includes where one is expected");
    }
    Ok(expanded)
}

/// Number of spaces before the text.
fn indentation(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "Api:\n  Body:\n    Fn::Transform:\n      Name: AWS::Include\n      Parameters:\n        \
                            Location: ../a.yaml\n\nTable: {}\n";

    #[test]
    fn the_include_is_replaced_where_it_stands() {
        let expanded = expand(TEMPLATE, |path| {
            assert_eq!(path, Path::new("../a.yaml"));
            Ok("openapi: 3.0.1\n\npaths:\n  /: {}\n".to_owned())
        });
        assert_eq!(
            expanded.unwrap(),
            "Api:\n  Body:\n    openapi: 3.0.1\n\n    paths:\n      /: {}\nTable: {}\n"
        );
    }

    #[test]
    fn a_template_without_an_include_is_refused() {
        let error = expand("Table: {}\n", |_| Ok(String::new())).unwrap_err();
        assert_eq!(error.to_string(), "0 includes where one is expected");
    }

    #[test]
    fn another_transform_is_refused() {
        let template = TEMPLATE.replace("AWS::Include", "Mine");
        let error = expand(&template, |_| Ok(String::new())).unwrap_err();
        assert_eq!(error.to_string(), "the transform `Mine` is not an include");
    }
}
