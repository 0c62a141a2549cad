//! The guardrail: a text that it is known to block is answered on no route.

use anyhow::ensure;

use super::stage::Stage;
use super::{A, Check, Part, Verdict};
use crate::event;
use crate::lock::Lock;

pub(super) const PART: Part = Part {
    name: "guardrail",
    needs: &["document"],
    checks: &[
        Check {
            name: "it intervenes in /genai/query",
            rests_on: Some(Lock::Guardrail),
            run: |stage| Box::pin(intervenes(stage, "/genai/query")),
        },
        Check {
            name: "it intervenes in /genai/query/stream",
            rests_on: Some(Lock::Guardrail),
            run: |stage| Box::pin(intervenes(stage, "/genai/query/stream")),
        },
        Check {
            name: "it intervenes in /genai/chat",
            rests_on: Some(Lock::Guardrail),
            run: |stage| Box::pin(intervenes(stage, "/genai/chat")),
        },
    ],
};

async fn intervenes(stage: &mut Stage, path: &str) -> anyhow::Result<Verdict> {
    let Some(blocked) = stage.options.guardrail_string.clone() else {
        return Ok(Verdict::skipped("--no-guardrail"));
    };
    let question = format!("Is {blocked} the call sign of the harbour ferry?");
    let call = stage.asking(A, path, &question).await?;
    let answer = stage.deployment.expect(&call, 200).await?;
    let action = if answer.is_event_stream() {
        let events = event::read(&answer.body)?;
        ensure!(!event::text(&events).contains(&blocked), "the answer repeats the text");
        let last = events
            .last()
            .and_then(|event| event.data.get("guardrail_action").cloned());
        last.unwrap_or_default()
    } else {
        ensure!(!answer.text().contains(&blocked), "the answer repeats the text");
        answer.json().get("guardrailAction").cloned().unwrap_or_default()
    };
    ensure!(
        action == "INTERVENED",
        "it did not: is there a guardrail, and does it block the text of --guardrail-string?"
    );
    Ok(Verdict::SOUND)
}
