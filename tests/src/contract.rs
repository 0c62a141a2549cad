//! Checks every answer that a test receives against the contract: an answer that it does not describe is a defect of one
//! of the two.

use std::collections::BTreeMap;

use bulkhead_cli::deployment::{Answer, Call};
use bulkhead_cli::event::{self, Event};
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::repository;

/// The contract, ready to check answers.
pub struct Contract {
    document: Value,
    /// Validators by path template, method and status.
    validators: BTreeMap<(String, String, String), Validator>,
    /// Validators of events' data by the events' names.
    events: BTreeMap<&'static str, Validator>,
}

/// The schema of each event's data.
const EVENTS: [(&str, &str); 7] = [
    ("session", "SessionEvent"),
    ("delta", "DeltaEvent"),
    ("citation", "Citation"),
    ("guardrail", "GuardrailEvent"),
    ("usage", "Usage"),
    ("done", "DoneEvent"),
    ("error", "Problem"),
];

impl Contract {
    /// Reads the contract.
    ///
    /// # Panics
    /// One of its schemas can't be compiled.
    pub fn load() -> Self {
        let document = repository::contract();
        let mut validators = BTreeMap::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("a path's operations") {
                let Some(responses) = operation.get("responses").and_then(Value::as_object) else {
                    continue;
                };
                for (status, response) in responses {
                    let schema = response
                        .get("content")
                        .and_then(Value::as_object)
                        .and_then(|content| content.values().next());
                    if let Some(schema) = schema.and_then(|media_type| media_type.get("schema")) {
                        // References point into the contract, so it travels with each schema.
                        let whole = json!({"allOf": [schema], "components": document["components"]});
                        let validator = jsonschema::draft4::new(&whole).expect("a schema that compiles");
                        validators.insert((path.clone(), method.clone(), status.clone()), validator);
                    }
                }
            }
        }
        let events = EVENTS.map(|(name, schema)| {
            let whole = json!({
                "$ref": format!("#/components/schemas/{schema}"),
                "components": document["components"],
            });
            (name, jsonschema::draft4::new(&whole).expect("a schema that compiles"))
        });
        Self {
            document,
            validators,
            events: events.into(),
        }
    }

    /// Checks an answer. What asks for no operation of the contract is not looked at.
    ///
    /// # Panics
    /// The contract does not have the answer's status, or its schema refuses the body.
    pub fn check(&self, call: &Call, answer: &Answer) {
        let method = call.method.as_str().to_lowercase();
        let Some(path) = self.template_of(&call.path, &method) else {
            return;
        };
        let status = answer.status.as_u16().to_string();
        let responses = &self.document["paths"][&path][&method]["responses"];
        let described = responses.get(&status);
        assert!(
            described.is_some(),
            "{method} {path}: the contract has no {status}: {}",
            answer.text()
        );
        if answer.is_event_stream() {
            let described = described.and_then(|described| described.pointer("/content/text~1event-stream"));
            assert!(described.is_some(), "{method} {path} {status}: a stream");
            self.check_events(&event::read(&answer.body).expect("events"));
        } else if let Some(validator) = self.validators.get(&(path.clone(), method.clone(), status.clone())) {
            let body = answer.json();
            let faults: Vec<String> = validator.iter_errors(&body).map(|error| error.to_string()).collect();
            assert!(faults.is_empty(), "{method} {path} {status}: {faults:?}: {body}");
        } else {
            assert!(
                answer.body.is_empty(),
                "{method} {path} {status} has a body that the contract does not describe"
            );
        }
    }

    /// Checks the events of a stream that was read to its end.
    ///
    /// # Panics
    /// One is not of the contract, the ids do not count up from one, or the last one and no other is not terminal.
    pub fn check_events(&self, events: &[Event]) {
        for (number, event) in (1..).zip(events) {
            let validator = self.events.get(event.name.as_str());
            let validator = validator.unwrap_or_else(|| panic!("the contract has no event `{}`", event.name));
            let faults: Vec<String> = validator
                .iter_errors(&event.data)
                .map(|error| error.to_string())
                .collect();
            assert!(faults.is_empty(), "{}: {faults:?}: {}", event.name, event.data);
            assert_eq!(event.id, number.to_string(), "{events:?}");
            assert_eq!(event.is_terminal(), number == events.len(), "{events:?}");
        }
        assert!(!events.is_empty(), "a stream without an event");
    }

    fn template_of(&self, path: &str, method: &str) -> Option<String> {
        let asked: Vec<&str> = path.split('?').next()?.split('/').collect();
        let matches = |template: &str| {
            let parts: Vec<&str> = template.split('/').collect();
            parts.len() == asked.len()
                && parts
                    .iter()
                    .zip(&asked)
                    .all(|(part, asked)| part == asked || (part.starts_with('{') && !asked.is_empty()))
        };
        let paths = self.document["paths"].as_object()?;
        paths
            .iter()
            .filter(|(template, item)| matches(template) && item.get(method).is_some())
            .map(|(template, _)| template.clone())
            // A literal segment wins over a parameter, as it does in API Gateway.
            .min_by_key(|template| template.matches('{').count())
    }
}
