//! Streams: they arrive while they are being written, end once, and are finished although nobody listens.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures::StreamExt as _;
use reqwest::Method;
use serde_json::Value;

use super::canary::QUESTION;
use super::stage::{Stage, look, poll, text};
use super::{A, Check, Part, Verdict};
use crate::event::{self, Event};

/// How long an answer may take whose reader has gone: what a stream may take, and some more.
const FINISHING: Duration = Duration::from_secs(150);

pub(super) const PART: Part = Part {
    name: "stream",
    needs: &["document"],
    checks: &[
        Check {
            name: "/genai/query/stream arrives in pieces and ends exactly once",
            rests_on: None,
            run: |stage| Box::pin(pieces(stage, "/genai/query/stream")),
        },
        Check {
            name: "/genai/chat arrives in pieces and ends exactly once",
            rests_on: None,
            run: |stage| Box::pin(pieces(stage, "/genai/chat")),
        },
        Check {
            name: "an answer is finished and kept although its reader has gone",
            rests_on: None,
            run: |stage| Box::pin(departed(stage)),
        },
    ],
};

async fn pieces(stage: &mut Stage, path: &str) -> anyhow::Result<Verdict> {
    let call = stage.asking(A, path, QUESTION).await?;
    let begun = Instant::now();
    let answer = stage.deployment.request(&call).await?;
    ensure!(answer.status().as_u16() == 200, "{} instead of 200", answer.status());
    let (mut body, mut arrived) = (Vec::new(), Vec::new());
    let mut stream = answer.bytes_stream();
    while let Some(piece) = stream.next().await {
        body.extend_from_slice(&piece.context("the stream broke")?);
        arrived.push(begun.elapsed());
    }
    let events = event::read(&body)?;
    ends_once(&events)?;
    ensure!(
        arrived.len() > 1,
        "it arrived in one piece: something on the way holds it back"
    );
    let (first, last) = (arrived.first(), arrived.last());
    let seconds = |at: Option<&Duration>| at.map_or(0.0, Duration::as_secs_f64);
    Ok(Verdict::noting(format!(
        "{} events in {} pieces, the first after {:.2} s, the last after {:.2} s",
        events.len(),
        arrived.len(),
        seconds(first),
        seconds(last)
    )))
}

/// Sees that the last event, and no other, is a good end.
fn ends_once(events: &[Event]) -> anyhow::Result<()> {
    let ends = events.iter().filter(|event| event.is_terminal()).count();
    let last = events.last().context("a stream without events")?;
    ensure!(
        ends == 1 && last.is_terminal(),
        "{ends} terminal events, the last event is `{}`",
        last.name
    );
    ensure!(last.name == "done", "it ended with an error");
    Ok(())
}

async fn departed(stage: &mut Stage) -> anyhow::Result<Verdict> {
    let call = stage.asking(A, "/genai/query/stream", QUESTION).await?;
    let mut events = stage.deployment.stream(&call).await?;
    ensure!(events.status.as_u16() == 200, "{} instead of 200", events.status);
    let first = events.next().await?.context("a stream without events")?;
    ensure!(first.name == "session", "its first event is `{}`", first.name);
    let session = text(&first.data, "session_id")?;
    drop(events);
    let begun = Instant::now();
    let kept = stage.read(A, Method::GET, &format!("/sessions/{session}")).await?;
    let word = stage.canary(A, QUESTION)?.word.clone();
    let deployment = &stage.deployment;
    let turn = poll(FINISHING, || async {
        let Some(answer) = look(deployment, &kept, &[200], &[]).await? else {
            return Ok(None);
        };
        let turn = answer
            .json()
            .pointer("/turns/0")
            .cloned()
            .context("nothing of it is kept")?;
        Ok((text(&turn, "status")? != "answering").then_some(turn))
    });
    let turn = turn
        .await?
        .with_context(|| format!("it is still being answered after {} s", FINISHING.as_secs()))?;
    let status = text(&turn, "status")?;
    let said = turn.pointer("/output/text").and_then(Value::as_str).unwrap_or_default();
    if status != "complete" || !said.contains(&word) {
        bail!("the answer is kept as {status}, and not whole");
    }
    Ok(Verdict::noting(format!(
        "finished {:.1} s after the reader left",
        begun.elapsed().as_secs_f64()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_ends_with_done_and_with_nothing_else() {
        let events = |names: &[&str]| -> Vec<Event> {
            let event = |name: &&str| Event {
                id: "1".to_owned(),
                name: (*name).to_owned(),
                data: Value::Null,
            };
            names.iter().map(event).collect()
        };
        assert!(ends_once(&events(&["session", "delta", "done"])).is_ok());
        for wrong in [
            &[][..],
            &["session", "delta"],
            &["done", "delta"],
            &["done", "done"],
            &["error", "done"],
            &["session", "error"],
        ] {
            assert!(ends_once(&events(wrong)).is_err(), "{wrong:?}");
        }
    }
}
