//! The main job, shown: three tenants, their documents, and the questions that tell them apart.

use std::process::ExitCode;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::client::{Client, Upload, problem, text};
use super::{ModelArguments, question, say, up};
use crate::stack::{Stack, StackConfig, wait_until};

/// The tenants and what each holds.
pub(super) const TENANTS: [(&str, &[Sample]); 3] = [
    ("test", &[EPISODES, SEASONS, GLOSSARY]),
    ("demo", &[SEASON_1, GLOSSARY]),
    ("dummy", &[]),
];

/// A document that comes with the stack.
#[derive(Clone, Copy)]
pub(super) struct Sample {
    name: &'static str,
    content: &'static [u8],
}

const EPISODES: Sample = Sample {
    name: "episodes.pdf",
    content: include_bytes!("../../samples/episodes.pdf"),
};
const SEASONS: Sample = Sample {
    name: "seasons.html",
    content: include_bytes!("../../samples/seasons.html"),
};
const GLOSSARY: Sample = Sample {
    name: "glossary.md",
    content: include_bytes!("../../samples/glossary.md"),
};
const SEASON_1: Sample = Sample {
    name: "season-1.docx",
    content: include_bytes!("../../samples/season-1.docx"),
};

/// What an answer must be for the demonstration to count.
enum Wanted {
    /// An answer with citations that holds these words.
    Answer(&'static [&'static str]),
    /// The plain statement that there is none, without citations.
    NoAnswer,
    /// A refusal with this status, and no process for the tenant.
    Refusal(StatusCode),
}

struct Question {
    tenant: &'static str,
    text: &'static str,
    wanted: Wanted,
}

const QUESTIONS: [Question; 7] = [
    Question {
        tenant: "test",
        text: "List the episodes of season 1.",
        wanted: Wanted::Answer(&["The Vanishing of Will Byers", "The Upside Down"]),
    },
    Question {
        tenant: "test",
        text: "List the episodes of season 4.",
        wanted: Wanted::Answer(&["The Hellfire Club", "The Piggyback"]),
    },
    Question {
        tenant: "test",
        text: "When was season 3 first shown?",
        wanted: Wanted::Answer(&["4 July 2019"]),
    },
    Question {
        tenant: "demo",
        text: "List the episodes of season 1.",
        wanted: Wanted::Answer(&["The Vanishing of Will Byers", "The Upside Down"]),
    },
    Question {
        tenant: "demo",
        text: "List the episodes of season 2.",
        wanted: Wanted::NoAnswer,
    },
    Question {
        tenant: "dummy",
        text: "List the episodes of season 1.",
        wanted: Wanted::NoAnswer,
    },
    Question {
        tenant: "nobody",
        text: "List the episodes of season 1.",
        wanted: Wanted::Refusal(StatusCode::FORBIDDEN),
    },
];

/// The whole demonstration on a stack of its own.
pub(super) async fn run(model: &ModelArguments) -> anyhow::Result<ExitCode> {
    let mut config = StackConfig {
        variables: up::variables(),
        ..StackConfig::new(up::binaries().await?)
    };
    model.apply(&mut config, 0)?;
    let stack = Stack::start(config).await?;
    let client = Client::new(up::ready(&stack))?;
    prepare(&client, &[]).await?;
    let good = show(&client, &stack).await;
    stack.stop().await;
    Ok(if good? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Creates the demo tenants and further ones, and uploads what is missing. Everything goes through the gateway.
pub(super) async fn prepare(client: &Client, further: &[String]) -> anyhow::Result<()> {
    let operator = client.operator_token().await?;
    let names = TENANTS
        .iter()
        .map(|(tenant, _)| *tenant)
        .chain(further.iter().map(String::as_str));
    create_tenants(client, &operator, names).await?;
    for (tenant, samples) in TENANTS {
        let token = client.tenant_token(tenant, "admin").await?;
        let present = documents(client, &token).await?;
        let missing = samples
            .iter()
            .filter(|sample| !present.iter().any(|name| name == sample.name));
        let mut uploaded = Vec::new();
        for sample in missing {
            let upload = Upload {
                name: sample.name,
                content: sample.content.to_vec(),
            };
            uploaded.push((sample.name, client.upload(&token, &upload).await?));
        }
        for (name, id) in uploaded {
            let document = client.indexed(&token, &id).await?;
            say!("  {tenant}: {name} {}", text(&document, "status")?);
        }
    }
    Ok(())
}

/// Creates tenants; one that exists is left as it is.
pub(super) async fn create_tenants(
    client: &Client,
    operator: &str,
    tenants: impl IntoIterator<Item = &str>,
) -> anyhow::Result<()> {
    for tenant in tenants {
        let (status, body) = client
            .call(Method::POST, "/tenants", operator, Some(json!({"tenant": tenant})))
            .await?;
        if status != StatusCode::CREATED && status != StatusCode::CONFLICT {
            anyhow::bail!("creating tenant {tenant} was answered {status}: {}", problem(&body));
        }
    }
    Ok(())
}

/// Has the knowledge base look through the whole bucket, as is done after every deployment, and waits until it has.
pub(super) async fn synchronise(client: &Client) -> anyhow::Result<()> {
    let operator = client.operator_token().await?;
    let (status, body) = client.call(Method::POST, "/ingestions", &operator, None).await?;
    if status == StatusCode::CONFLICT {
        // Documents were handed over within the last half minute, by a stack that has been stopped since.
        say!("  not synchronised: {}", problem(&body));
        return Ok(());
    }
    if status != StatusCode::ACCEPTED {
        anyhow::bail!("starting an ingestion was answered {status}: {}", problem(&body));
    }
    let path = format!("/ingestions/{}", text(&body, "ingestion_id")?);
    let limit = std::time::Duration::from_secs(120);
    wait_until("the ingestion ends", limit, || async {
        let ingestion = client
            .expect(StatusCode::OK, Method::GET, &path, &operator, None)
            .await?;
        Ok((!matches!(text(&ingestion, "status")?, "starting" | "in_progress")).then_some(()))
    })
    .await
}

/// Asks the questions and shows the answers; true if each was as it should be.
pub(super) async fn show(client: &Client, stack: &Stack) -> anyhow::Result<bool> {
    let mut good = true;
    for Question { tenant, text, wanted } in &QUESTIONS {
        let token = client.tenant_token(tenant, "reader").await?;
        let answer = question::ask(client, &token, text).await?;
        say!("\n{tenant}> {text}\n{answer}");
        let as_wanted = match wanted {
            Wanted::Answer(words) => {
                answer.status == StatusCode::OK
                    && !answer.sources.is_empty()
                    && words.iter().all(|word| answer.text.contains(word))
            }
            Wanted::NoAnswer => {
                answer.status == StatusCode::OK && answer.sources.is_empty() && answer.text.contains("No exact answer")
            }
            Wanted::Refusal(status) => {
                let started = stack
                    .lambda()
                    .processes()
                    .iter()
                    .any(|process| process.tenant.as_deref() == Some(*tenant));
                answer.status == *status && !started
            }
        };
        if !as_wanted {
            good = false;
            say!("  ^ not as it should be");
        }
    }
    Ok(good)
}

async fn documents(client: &Client, token: &str) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut path = "/documents?limit=100".to_owned();
    loop {
        let page = client.expect(StatusCode::OK, Method::GET, &path, token, None).await?;
        let documents = page.get("documents").and_then(Value::as_array).into_iter().flatten();
        names.extend(
            documents
                .filter_map(|document| document.get("name")?.as_str())
                .map(str::to_owned),
        );
        match page.get("next_cursor").and_then(Value::as_str) {
            Some(cursor) => path = format!("/documents?limit=100&cursor={cursor}"),
            None => return Ok(names),
        }
    }
}
