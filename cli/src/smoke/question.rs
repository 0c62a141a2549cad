//! Questions: each tenant is told its own word and not the other's, on every route that answers.

use anyhow::{bail, ensure};
use serde_json::json;

use super::canary::{COMPARISON_QUESTION, QUESTION};
use super::stage::{Stage, text};
use super::{A, B, Check, Part, Verdict};
use crate::deployment::{Answer, Call};
use crate::event;
use crate::lock::Lock;

/// More than the 64 KB that a question's body may have.
const OVERSIZE: usize = 70_000;

pub(super) const PART: Part = Part {
    name: "question",
    needs: &["document"],
    checks: &[
        Check {
            name: "/genai/query tells each tenant its own, not the other's",
            rests_on: Some(Lock::Retrieval),
            run: |stage| Box::pin(own_word(stage, "/genai/query")),
        },
        Check {
            name: "/genai/query/stream tells each tenant its own, not the other's",
            rests_on: Some(Lock::Retrieval),
            run: |stage| Box::pin(own_word(stage, "/genai/query/stream")),
        },
        Check {
            name: "/genai/retrieve tells each tenant its own, not the other's",
            rests_on: Some(Lock::Retrieval),
            run: |stage| Box::pin(own_word(stage, "/genai/retrieve")),
        },
        Check {
            name: "/genai/chat tells each tenant its own, not the other's",
            rests_on: Some(Lock::Retrieval),
            run: |stage| Box::pin(own_word(stage, "/genai/chat")),
        },
        Check {
            name: "a search for the other tenant's word finds nothing of it",
            rests_on: Some(Lock::Retrieval),
            run: |stage| Box::pin(foreign_word(stage)),
        },
        Check {
            name: "`a < b > c` is no attack in a question",
            rests_on: None,
            run: |stage| Box::pin(comparison(stage)),
        },
        Check {
            name: "a body of more than 64 KB is refused",
            rests_on: Some(Lock::Firewall),
            run: |stage| Box::pin(oversize(stage)),
        },
    ],
};

/// All that an answer says: as it arrived, and with the pieces of a stream joined, which may divide a word.
pub(super) fn told(answer: &Answer) -> anyhow::Result<String> {
    let mut told = answer.text();
    if answer.is_event_stream() {
        let events = event::read(&answer.body)?;
        let pieces = events.iter().filter(|event| event.name == "delta");
        told.extend(pieces.filter_map(|event| event.data.get("text")?.as_str()));
    }
    Ok(told)
}

async fn own_word(stage: &mut Stage, path: &str) -> anyhow::Result<Verdict> {
    for tenant in [A, B] {
        let call = stage.asking(tenant, path, QUESTION).await?;
        let answer = stage.deployment.expect(&call, 200).await?;
        let told = told(&answer)?;
        stage.holds_nothing_foreign(tenant, &told)?;
        if !told.contains(&stage.canary(tenant, QUESTION)?.word) {
            bail!("{tenant} is not told its own word");
        }
        if (tenant, path) == (A, "/genai/query") {
            stage.session = Some(text(&answer.json(), "sessionId")?);
        }
    }
    Ok(Verdict::SOUND)
}

async fn foreign_word(stage: &mut Stage) -> anyhow::Result<Verdict> {
    for (tenant, other) in [(A, B), (B, A)] {
        let word = stage.canary(other, QUESTION)?.word.clone();
        let call = stage.asking(tenant, "/genai/retrieve", &word).await?;
        let answer = stage.deployment.expect(&call, 200).await?;
        stage.holds_nothing_foreign(tenant, &answer.text())?;
    }
    Ok(Verdict::SOUND)
}

async fn comparison(stage: &mut Stage) -> anyhow::Result<Verdict> {
    let call = stage.asking(A, "/genai/query", COMPARISON_QUESTION).await?;
    let answer = stage.deployment.expect(&call, 200).await?;
    let word = &stage.canary(A, COMPARISON_QUESTION)?.word;
    ensure!(answer.text().contains(word), "it is not answered from the document");
    Ok(Verdict::SOUND)
}

async fn oversize(stage: &mut Stage) -> anyhow::Result<Verdict> {
    let body = json!({"user_query": QUESTION, "context": "a ".repeat(OVERSIZE / 2)});
    let call: Call = stage.asking(A, "/genai/query", QUESTION).await?.json(&body);
    let answer = stage.deployment.send(&call).await?;
    // The same token was just answered, so a 403 is not about who asks.
    match (answer.status.as_u16(), answer.code().as_deref()) {
        (413, Some("payload_too_large")) => Ok(Verdict::noting("413: by the function, no WAF stands before it")),
        (403, code) if !matches!(code, Some("tenant_unknown" | "tenant_suspended")) => {
            Ok(Verdict::noting("403: by the WAF"))
        }
        _ => bail!("{} instead of 403 or 413", answer.summary()),
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;
    use reqwest::header::HeaderMap;

    use super::*;
    use crate::smoke::Options;

    #[test]
    fn a_foreign_word_is_found_however_a_stream_divides_it() {
        let stage = Stage::new(Options {
            url: "http://127.0.0.1:9/v1".to_owned(),
            token_command: String::new(),
            guardrail_string: None,
            ingestion: false,
            cognito_endpoint: None,
        })
        .unwrap();
        let word = &stage.canary(B, QUESTION).unwrap().word;
        let (begin, end) = word.split_at(5);
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "text/event-stream".parse().unwrap());
        let answer = Answer {
            status: StatusCode::OK,
            headers,
            body: format!(
                "id: 1\nevent: delta\ndata: {{\"text\":\"It is {begin}\"}}\n\n\
                 id: 2\nevent: delta\ndata: {{\"text\":\"{end}.\"}}\n\n\
                 id: 3\nevent: done\ndata: {{\"guardrail_action\":\"NONE\"}}\n\n"
            )
            .into_bytes(),
        };
        let told = told(&answer).unwrap();
        assert!(!answer.text().contains(word.as_str()));
        assert!(stage.holds_nothing_foreign(B, &told).is_ok());
        let fault = stage.holds_nothing_foreign(A, &told).unwrap_err().to_string();
        assert!(!fault.contains(word.as_str()), "{fault}");
    }
}
