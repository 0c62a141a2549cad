//! `POST /genai/retrieve`: the passages that a question finds, and no answer.
//!
//! They come the same way as those that the `verified` engine reads: under the same filter, through the same firewall,
//! past the same guardrail. How well each one fits is not told: the number differs from store to store, and what it says of
//! a passage it would also say of those that were held back.

use bulkhead_core::error::Error;
use bulkhead_core::plan::EngineName;
use bulkhead_core::request::Request;
use bulkhead_core::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::State;
use crate::answer::Reference;
use crate::narrowing::UnverifiedNarrowing;
use crate::query::{AFTERWARDS, Wish};
use crate::question;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    query: String,
    number_of_results: Option<i64>,
    filter: Option<UnverifiedNarrowing>,
}

/// What was found, in Bedrock's order and shape.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Found<'a> {
    retrieval_results: Vec<Reference<'a>>,
}

impl State {
    /// Searches.
    pub(crate) async fn retrieve(&self, request: &Request) -> Result<Response, Error> {
        let deadline = Instant::now() + request.time_left().saturating_sub(AFTERWARDS);
        let context = self.caller(request)?;
        let body: Body = request.json()?;
        let wish = Wish {
            // The one that reads passages; nothing is asked of a model.
            engine: EngineName::Verified,
            question: question::search_text(&body.query, "/query")?,
            background: None,
            history: Vec::new(),
            filter: body.filter,
            results: question::results(body.number_of_results)?,
        };
        let data = self.data(&context, EngineName::Managed).await?;
        let ask = self.ask(self.asker(context, data).await?, wish, deadline)?;
        let passages = self.shared.engines.checked_passages(&ask, &ask.question).await?;
        tracing::info!(passages = passages.len(), "retrieved");
        let found = Found {
            retrieval_results: passages.iter().map(|passage| Reference::new(passage, None)).collect(),
        };
        Response::json(StatusCode::OK, &found)
    }
}
