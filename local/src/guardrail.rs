//! Amazon Bedrock Guardrails: a word policy and the masking of e-mail addresses, and ApplyGuardrail.
//!
//! What a guardrail says is `AWS::Bedrock::Guardrail`'s; the knowledge base and the models ask [`Guardrail::check`], so
//! that every way to a model is guarded alike.
//!
//! Known, and without effect: prompt attacks, contextual grounding, and of personal data and secrets everything but
//! e-mail addresses, because a model of AWS's judges them. A template may have them, and nothing is ever found here. Topics,
//! other content filters, regular expressions and lists of words that AWS keeps are not here either: a template that has them
//! is refused.
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ApplyGuardrail.html>

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use crate::credential::Caller;
use crate::front_door::{RestService, ServiceBody};

/// Characters of text that are one unit of a policy.
const UNIT: usize = 1_000;

/// Whose text is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The user's, or what a document says.
    Input,
    /// A model's.
    Output,
}

/// What a guardrail does about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    /// It notes it.
    #[default]
    None,
    /// It replaces the text by its message. Of words only and of addresses.
    Block,
    /// It replaces the finding by its kind, `{EMAIL}`. Of addresses only.
    Mask,
}

/// What is done about a finding, by whose text it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Actions {
    /// In a user's text.
    pub input: Action,
    /// In a model's.
    pub output: Action,
}

impl Actions {
    /// The same in both.
    #[must_use]
    pub const fn both(action: Action) -> Self {
        Self {
            input: action,
            output: action,
        }
    }

    const fn of(self, source: Source) -> Action {
        match source {
            Source::Input => self.input,
            Source::Output => self.output,
        }
    }
}

/// A word, or a phrase of a few.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// As it is configured. It is found as whole words and in any case.
    pub text: String,
    /// What is done about it.
    pub actions: Actions,
}

/// One guardrail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guardrail {
    /// Its id: small letters and digits.
    pub id: String,
    /// Its ARN.
    pub arn: String,
    /// Its numbered versions, beside `DRAFT`. All of them say the same here.
    pub versions: Vec<String>,
    /// The word policy.
    pub words: Vec<Word>,
    /// What is done about e-mail addresses, if it looks for them.
    pub emails: Option<Actions>,
    /// What is said instead of an answer to a user's text that is blocked.
    pub blocked_input: String,
    /// What is said instead of a model's text that is blocked.
    pub blocked_output: String,
}

impl Guardrail {
    /// A guardrail with version 1 that blocks these words on both sides.
    #[must_use]
    pub fn blocking(id: &str, words: &[&str]) -> Self {
        let word = |text: &&str| Word {
            text: (*text).to_owned(),
            actions: Actions::both(Action::Block),
        };
        Self {
            id: id.to_owned(),
            arn: format!("arn:aws:bedrock:us-east-1:123456789012:guardrail/{id}"),
            versions: vec!["1".to_owned()],
            words: words.iter().map(word).collect(),
            emails: None,
            blocked_input: "Sorry, the model cannot answer this question.".to_owned(),
            blocked_output: "Sorry, the model cannot answer this question.".to_owned(),
        }
    }

    /// Whether a request that names a guardrail (by id or ARN) and a version means this one.
    #[must_use]
    pub fn is_named(&self, identifier: &str, version: &str) -> bool {
        (identifier == self.id || identifier == self.arn)
            && (version == "DRAFT" || self.versions.iter().any(|known| known == version))
    }

    /// Looks at one text.
    #[must_use]
    pub fn check(&self, text: &str, source: Source) -> Assessment {
        let said = words(text);
        let mut findings = Vec::new();
        for word in &self.words {
            let wanted = words(&word.text);
            if !wanted.is_empty() && said.windows(wanted.len()).any(|window| window == wanted) {
                findings.push(Finding {
                    kind: FindingKind::Word,
                    text: word.text.clone(),
                    action: word.actions.of(source),
                });
            }
        }
        if let Some(actions) = self.emails {
            for address in emails(text) {
                findings.push(Finding {
                    kind: FindingKind::Email,
                    text: address.to_owned(),
                    action: actions.of(source),
                });
            }
        }
        let is = |action: Action| findings.iter().any(|finding| finding.action == action);
        let verdict = if is(Action::Block) {
            Verdict::Blocked(match source {
                Source::Input => self.blocked_input.clone(),
                Source::Output => self.blocked_output.clone(),
            })
        } else if is(Action::Mask) {
            let addresses = findings.iter().filter(|finding| finding.kind == FindingKind::Email);
            Verdict::Masked(addresses.fold(text.to_owned(), |masked, finding| {
                masked.replace(finding.text.as_str(), "{EMAIL}")
            }))
        } else {
            Verdict::Passed
        };
        Assessment {
            verdict,
            findings,
            characters: text.chars().count(),
            looks_for_words: !self.words.is_empty(),
            looks_for_emails: self.emails.is_some(),
        }
    }
}

/// What becomes of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It stays as it is.
    Passed,
    /// It becomes this text.
    Masked(String),
    /// This message takes its place.
    Blocked(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FindingKind {
    Word,
    Email,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    kind: FindingKind,
    text: String,
    action: Action,
}

/// What a guardrail found in one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// What becomes of the text.
    pub verdict: Verdict,
    findings: Vec<Finding>,
    characters: usize,
    looks_for_words: bool,
    looks_for_emails: bool,
}

impl Assessment {
    /// Whether the text does not stay as it is.
    #[must_use]
    pub fn intervenes(&self) -> bool {
        self.verdict != Verdict::Passed
    }

    /// AWS's `GuardrailAssessment`, as ApplyGuardrail and the traces of Converse have it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let of = |kind: FindingKind| {
            let findings = self.findings.iter().filter(move |finding| finding.kind == kind);
            findings.map(|finding| {
                let action = match finding.action {
                    Action::None => "NONE",
                    Action::Block => "BLOCKED",
                    Action::Mask => "ANONYMIZED",
                };
                (finding.text.as_str(), action)
            })
        };
        let words: Vec<Value> = of(FindingKind::Word)
            .map(|(text, action)| json!({ "match": text, "action": action, "detected": true }))
            .collect();
        let emails: Vec<Value> = of(FindingKind::Email)
            .map(|(text, action)| json!({ "match": text, "type": "EMAIL", "action": action, "detected": true }))
            .collect();
        let mut assessment = Map::new();
        if !words.is_empty() {
            let policy = json!({ "customWords": words, "managedWordLists": [] });
            assessment.insert("wordPolicy".to_owned(), policy);
        }
        if !emails.is_empty() {
            let policy = json!({ "piiEntities": emails, "regexes": [] });
            assessment.insert("sensitiveInformationPolicy".to_owned(), policy);
        }
        let metrics = json!({
            "guardrailProcessingLatency": 0,
            "usage": self.usage(),
            "guardrailCoverage": { "textCharacters": { "guarded": self.characters, "total": self.characters } },
        });
        assessment.insert("invocationMetrics".to_owned(), metrics);
        Value::Object(assessment)
    }

    fn usage(&self) -> Value {
        let units = |looks: bool| if looks { self.characters.div_ceil(UNIT) } else { 0 };
        json!({
            "topicPolicyUnits": 0,
            "contentPolicyUnits": 0,
            "wordPolicyUnits": units(self.looks_for_words),
            "sensitiveInformationPolicyUnits": units(self.looks_for_emails),
            "sensitiveInformationPolicyFreeUnits": 0,
            "contextualGroundingPolicyUnits": 0,
        })
    }
}

/// The words of a text in small letters. What stands between them (blanks, signs) does not matter.
fn words(text: &str) -> Vec<String> {
    text.split(|character: char| !character.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// The e-mail addresses in a text: what stands between blanks, brackets and quotation marks and has an `@` with a dot
/// somewhere behind it.
fn emails(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| character.is_whitespace() || "<>()[]{}\"',;:".contains(character))
        .map(|candidate| candidate.trim_matches('.'))
        .filter(|candidate| {
            candidate
                .split_once('@')
                .is_some_and(|(name, host)| !name.is_empty() && host.contains('.') && !host.contains('@'))
        })
}

/// The guardrails of the account. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Guardrails {
    guardrails: Arc<[Guardrail]>,
}

impl Guardrails {
    /// These.
    #[must_use]
    pub fn new(guardrails: Vec<Guardrail>) -> Self {
        Self {
            guardrails: guardrails.into(),
        }
    }

    /// The guardrail of that id or ARN, if it has that version.
    #[must_use]
    pub fn find(&self, identifier: &str, version: &str) -> Option<&Guardrail> {
        self.guardrails
            .iter()
            .find(|guardrail| guardrail.is_named(identifier, version))
    }

    fn apply(&self, request: &Request<Bytes>) -> Result<Value, Refusal> {
        let (identifier, version) = named(request.uri().path()).ok_or(Refusal::NotFound)?;
        let guardrail = self.find(&identifier, &version).ok_or(Refusal::NotFound)?;
        let invalid = |what: &str| Refusal::Validation(what.to_owned());
        let body: Value =
            serde_json::from_slice(request.body()).map_err(|_| invalid("The request body is not valid JSON."))?;
        let source = match body.get("source").and_then(Value::as_str) {
            Some("INPUT") => Source::Input,
            Some("OUTPUT") => Source::Output,
            _ => return Err(invalid("source must be one of [INPUT, OUTPUT]")),
        };
        let Some(content) = body.get("content").and_then(Value::as_array) else {
            return Err(invalid("content must be a list"));
        };
        let mut texts = Vec::new();
        for block in content {
            match block.pointer("/text/text").and_then(Value::as_str) {
                Some(text) if !text.is_empty() => texts.push(text),
                Some(_) => return Err(invalid("The text of a content block is empty.")),
                None => return Err(invalid("Content blocks that are not text are not emulated.")),
            }
        }
        if texts.is_empty() {
            return Err(invalid("content must have at least one block"));
        }
        // The policies look at all of it; what is masked is given back block by block.
        let whole = guardrail.check(&texts.join("\n"), source);
        let (action, reason, outputs) = match &whole.verdict {
            Verdict::Passed => ("NONE", "No action.", Vec::new()),
            Verdict::Blocked(message) => ("GUARDRAIL_INTERVENED", "Guardrail blocked.", vec![message.clone()]),
            Verdict::Masked(_) => {
                let masked = texts.iter().map(|text| match guardrail.check(text, source).verdict {
                    Verdict::Masked(masked) => masked,
                    Verdict::Passed | Verdict::Blocked(_) => (*text).to_owned(),
                });
                ("GUARDRAIL_INTERVENED", "Guardrail masked.", masked.collect())
            }
        };
        let outputs: Vec<Value> = outputs.into_iter().map(|text| json!({ "text": text })).collect();
        Ok(json!({
            "usage": whole.usage(),
            "action": action,
            "actionReason": reason,
            "outputs": outputs,
            "assessments": [whole.to_json()],
            "guardrailCoverage": { "textCharacters": { "guarded": whole.characters, "total": whole.characters } },
        }))
    }
}

impl RestService for Guardrails {
    fn operation(&self, method: &Method, path: &str) -> Option<&'static str> {
        (method == Method::POST && named(path).is_some()).then_some("ApplyGuardrail")
    }

    fn handle(&self, request: Request<Bytes>, _: Caller) -> BoxFuture<'_, Response<ServiceBody>> {
        Box::pin(async move {
            match self.apply(&request) {
                Ok(body) => respond(StatusCode::OK, &body),
                Err(refusal) => {
                    let (status, kind, message) = match refusal {
                        Refusal::NotFound => (
                            StatusCode::NOT_FOUND,
                            "ResourceNotFoundException",
                            "The guardrail identifier or version provided in the request does not exist.".to_owned(),
                        ),
                        Refusal::Validation(message) => (StatusCode::BAD_REQUEST, "ValidationException", message),
                    };
                    let mut response = respond(status, &json!({ "message": message }));
                    response
                        .headers_mut()
                        .insert("x-amzn-errortype", HeaderValue::from_static(kind));
                    response
                }
            }
        })
    }
}

/// Why ApplyGuardrail is refused.
enum Refusal {
    NotFound,
    Validation(String),
}

fn respond(status: StatusCode, body: &Value) -> Response<ServiceBody> {
    let mut response = Response::new(ServiceBody::Whole(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Identifier and version in `/guardrail/{id or ARN}/version/{version}/apply`.
fn named(path: &str) -> Option<(String, String)> {
    let rest = path.strip_prefix("/guardrail/")?.strip_suffix("/apply")?;
    let (identifier, version) = rest.split_once("/version/")?;
    let decoded = |text: &str| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
    Some((decoded(identifier)?, decoded(version)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guardrail() -> Guardrail {
        Guardrail {
            emails: Some(Actions {
                input: Action::None,
                output: Action::Mask,
            }),
            ..Guardrail::blocking("abc123", &["Dynamite", "top secret"])
        }
    }

    #[test]
    fn words_are_found_whole_and_in_any_case() {
        let blocked = |text: &str| matches!(guardrail().check(text, Source::Input).verdict, Verdict::Blocked(_));
        for text in ["dynamite", "Some DYNAMITE!", "It is top\n secret.", "a top-secret plan"] {
            assert!(blocked(text), "{text}");
        }
        for text in ["", "dynamites", "top", "secret top", "topsecret", "top of the secret"] {
            assert!(!blocked(text), "{text}");
        }
    }

    #[test]
    fn a_word_is_blocked_where_it_says() {
        let mut guardrail = guardrail();
        guardrail.words[0].actions.input = Action::None;
        guardrail.blocked_output = "Not that.".to_owned();
        let noted = guardrail.check("dynamite", Source::Input);
        assert!(!noted.intervenes());
        assert_eq!(
            noted.to_json()["wordPolicy"]["customWords"],
            json!([{"match": "Dynamite", "action": "NONE", "detected": true}])
        );
        assert_eq!(
            guardrail.check("dynamite", Source::Output).verdict,
            Verdict::Blocked("Not that.".to_owned())
        );
    }

    #[test]
    fn addresses_are_masked() {
        let text = "Write to <ann@example.com>, or bob@example.org. Not @home or a@b@c.d.";
        let masked = "Write to <{EMAIL}>, or {EMAIL}. Not @home or a@b@c.d.";
        assert_eq!(
            guardrail().check(text, Source::Output).verdict,
            Verdict::Masked(masked.to_owned())
        );
        assert_eq!(guardrail().check(text, Source::Input).verdict, Verdict::Passed);
        let both = guardrail().check("dynamite@example.com", Source::Output);
        assert!(matches!(both.verdict, Verdict::Blocked(_)), "a blocked word wins");
    }

    #[test]
    fn a_guardrail_has_a_draft_and_its_versions() {
        let guardrails = Guardrails::new(vec![guardrail()]);
        let arn = "arn:aws:bedrock:us-east-1:123456789012:guardrail/abc123";
        for (identifier, version, known) in [
            ("abc123", "DRAFT", true),
            ("abc123", "1", true),
            (arn, "1", true),
            ("abc123", "2", false),
            ("abc", "1", false),
        ] {
            assert_eq!(
                guardrails.find(identifier, version).is_some(),
                known,
                "{identifier} {version}"
            );
        }
    }

    async fn apply(path: &str, body: &Value) -> (u16, Value) {
        let guardrails = Guardrails::new(vec![guardrail()]);
        assert_eq!(guardrails.operation(&Method::POST, path), Some("ApplyGuardrail"));
        let request = Request::post(path).body(Bytes::from(body.to_string())).unwrap();
        let caller = Caller {
            principal: "F".to_owned(),
            tenant: None,
            ..Caller::default()
        };
        let response = guardrails.handle(request, caller).await;
        let status = response.status().as_u16();
        (
            status,
            serde_json::from_slice(&response.into_body().collect().await).unwrap(),
        )
    }

    #[tokio::test]
    async fn it_is_applied_as_aws_does() {
        let path = "/guardrail/abc123/version/1/apply";
        let content = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| json!({"text": {"text": text}}))
                .collect::<Vec<_>>()
        };
        let ask = |source: &str, texts: &[&str]| json!({"source": source, "content": content(texts)});

        let (status, passed) = apply(path, &ask("INPUT", &["harmless"])).await;
        assert_eq!(
            (status, &passed["action"], &passed["outputs"]),
            (200, &json!("NONE"), &json!([]))
        );
        assert_eq!(passed["usage"]["wordPolicyUnits"], 1);

        let (_, blocked) = apply(path, &ask("INPUT", &["harmless", "top", "secret"])).await;
        assert_eq!(blocked["action"], "GUARDRAIL_INTERVENED");
        assert_eq!(
            blocked["outputs"],
            json!([{"text": "Sorry, the model cannot answer this question."}])
        );

        let (_, masked) = apply(path, &ask("OUTPUT", &["no", "ann@example.com"])).await;
        assert_eq!(masked["outputs"], json!([{"text": "no"}, {"text": "{EMAIL}"}]));

        let encoded =
            "/guardrail/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aguardrail%2Fabc123/version/DRAFT/apply";
        assert_eq!(apply(encoded, &ask("INPUT", &["x"])).await.0, 200);
        assert_eq!(
            apply("/guardrail/abc123/version/7/apply", &ask("INPUT", &["x"]))
                .await
                .0,
            404
        );
        for wrong in [json!({}), ask("BOTH", &["x"]), ask("INPUT", &[]), ask("INPUT", &[""])] {
            assert_eq!(apply(path, &wrong).await.0, 400, "{wrong}");
        }
    }
}
