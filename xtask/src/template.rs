//! The template as a deployment would run it: the include expanded, SAM's resources translated to plain CloudFormation by
//! AWS's own translator, then linted and checked.
//!
//! Not here: whether AWS would take it. Linters know types and names, no account's state.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::expansion;
use crate::python::Tools;
use crate::workspace::{Workspace, check};

/// How many differences are named.
const SHOWN: usize = 10;

/// Expands, translates, compares and lints it.
///
/// # Errors
/// If it can't be expanded or translated, the API's body is not the contract, or a linter finds something.
pub fn lint(workspace: &Workspace) -> anyhow::Result<()> {
    let tools = Tools::Lint.programs(workspace)?;
    let folder = workspace.target.join("lint");
    translate(workspace, &tools, &folder)?;
    let translated = folder.join("translated.json");
    let different = differences(&read(&folder.join("contract.json"))?, body(&read(&translated)?)?);
    if !different.is_empty() {
        let shown: Vec<&str> = different.iter().take(SHOWN).map(String::as_str).collect();
        bail!(
            "{} differences between openapi/gateway.yaml and the API that SAM makes of it:\n{}",
            different.len(),
            shown.join("\n")
        );
    }
    check(
        workspace
            .command(tools.join("cfn-lint"))
            .args(["--template", "infra/template.yaml"])
            .arg(&translated),
    )
}

/// Checks what [`lint`] has translated against checkov's rules of safe configuration.
///
/// # Errors
/// If it breaks a rule that `infra/checkov.yaml` does not skip, or was not translated.
pub fn audit(workspace: &Workspace) -> anyhow::Result<()> {
    let translated = workspace.target.join("lint/translated.json");
    if !translated.is_file() {
        bail!("the template was not translated");
    }
    let tools = Tools::Checkov.programs(workspace)?;
    check(
        workspace
            .command(tools.join("checkov"))
            .args(["--config-file", "infra/checkov.yaml", "--file"])
            .arg(&translated),
    )
}

/// Writes `translated.json` and `contract.json` into `folder`.
fn translate(workspace: &Workspace, tools: &Path, folder: &Path) -> anyhow::Result<()> {
    let infra = workspace.root.join("infra");
    let template = std::fs::read_to_string(infra.join("template.yaml")).context("infra/template.yaml")?;
    let expanded = expansion::expand(&template, |location| {
        let path = infra.join(location);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    })?;
    std::fs::create_dir_all(folder)?;
    let expanded_file = folder.join("template.yaml");
    std::fs::write(&expanded_file, expanded)?;
    check(
        workspace
            .command(tools.join("python"))
            .arg("infra/translate.py")
            .arg(&expanded_file)
            .arg("openapi/gateway.yaml")
            .arg(folder),
    )
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    serde_json::from_reader(BufReader::new(file)).with_context(|| path.display().to_string())
}

/// The body of the one REST API.
fn body(translated: &Value) -> anyhow::Result<&Value> {
    let resources = translated
        .get("Resources")
        .and_then(Value::as_object)
        .context("a template without resources")?;
    let mut apis = resources
        .values()
        .filter(|resource| resource.get("Type").and_then(Value::as_str) == Some("AWS::ApiGateway::RestApi"));
    let (Some(api), None) = (apis.next(), apis.next()) else {
        bail!("not exactly one REST API");
    };
    api.pointer("/Properties/Body").context("an API without a body")
}

/// Where `made` is not `wanted`, as JSON pointers with what is the matter. SAM adds nothing to a body whose API says
/// neither `Auth` nor `Cors`, so nothing is expected to be added.
fn differences(wanted: &Value, made: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare(wanted, made, "", &mut found);
    found
}

fn compare(wanted: &Value, made: &Value, pointer: &str, found: &mut Vec<String>) {
    match (wanted, made) {
        (Value::Object(wanted), Value::Object(made)) => {
            for (name, value) in wanted {
                let pointer = format!("{pointer}/{}", escape(name));
                match made.get(name) {
                    Some(other) => compare(value, other, &pointer, found),
                    None => found.push(format!("{pointer} is lost")),
                }
            }
            let added = made.keys().filter(|name| !wanted.contains_key(*name));
            found.extend(added.map(|name| format!("{pointer}/{} is added", escape(name))));
        }
        (Value::Array(wanted), Value::Array(made)) if wanted.len() == made.len() => {
            for (index, (value, other)) in wanted.iter().zip(made).enumerate() {
                compare(value, other, &format!("{pointer}/{index}"), found);
            }
        }
        _ if wanted == made => {}
        _ => found.push(format!("{pointer} is {made}, not {wanted}")),
    }
}

/// A name as a part of a JSON pointer (RFC 6901, section 3).
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_lost_added_or_changed_is_named_where_it_is() {
        let wanted =
            json!({"paths": {"/a": {"get": {"security": []}}, "/b": {}}, "tags": [1, {"x": true}], "same": null});
        assert_eq!(differences(&wanted, &wanted), [""; 0]);
        let made =
            json!({"paths": {"/a": {"get": {"security": [], "more": 1}}}, "tags": [1, {"x": "true"}], "same": null});
        assert_eq!(
            differences(&wanted, &made),
            [
                "/paths/~1a/get/more is added",
                "/paths/~1b is lost",
                "/tags/1/x is \"true\", not true"
            ]
        );
        assert_eq!(differences(&json!([1]), &json!([1, 2])), [" is [1,2], not [1]"]);
    }

    #[test]
    fn the_body_is_that_of_the_only_api() {
        let api = json!({"Type": "AWS::ApiGateway::RestApi", "Properties": {"Body": {"paths": {}}}});
        let one = json!({"Resources": {"Api": api, "Other": {"Type": "AWS::S3::Bucket"}}});
        assert_eq!(body(&one).unwrap(), &json!({"paths": {}}));
        let two = json!({"Resources": {"Api": api, "Second": api}});
        assert!(body(&two).is_err());
        assert!(body(&json!({"Resources": {}})).is_err());
    }
}
