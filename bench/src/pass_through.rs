//! The least that streams a model's answer to a browser: one hyper server that calls ConverseStream with the SDK, as
//! the functions do, and forwards every token as a server-sent event. It knows no tenant, checks nothing, and stores
//! nothing.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use aws_sdk_bedrockruntime::Client;
use aws_sdk_bedrockruntime::types::{ContentBlock, ConversationRole, ConverseStreamOutput, Message};
use bytes::Bytes;
use futures::{Stream, stream};
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Of the same form as the gateway's prompt, so that the fake model takes it for a question.
const PROMPT: &str =
    "<passage number=\"1\">The archive opens at nine.</passage>\n<question>When does the archive open?</question>";

/// A running pass-through. It ends when it is dropped.
pub struct PassThrough {
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl PassThrough {
    /// Starts one that asks this model.
    ///
    /// # Errors
    /// If it can't listen on the loopback interface.
    pub async fn start(client: Client, model: String) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, client.clone(), model.clone()));
            }
        });
        Ok(Self { address, server })
    }

    /// Where every request is answered with the same question's answer.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for PassThrough {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(connection: TcpStream, client: Client, model: String) {
    // As the gateway's own connections have it. Neither a client that leaves nor this option failing is of interest.
    let _ = connection.set_nodelay(true);
    let service = service_fn(move |_request: Request<Incoming>| answer(client.clone(), model.clone()));
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(connection), service)
        .await;
}

async fn answer(
    client: Client,
    model: String,
) -> anyhow::Result<Response<StreamBody<impl Stream<Item = Result<Frame<Bytes>, Infallible>>>>> {
    let message = Message::builder()
        .role(ConversationRole::User)
        .content(ContentBlock::Text(PROMPT.to_owned()))
        .build()?;
    let answer = client.converse_stream().model_id(model).messages(message).send().await;
    let events = answer.context("ConverseStream")?.stream;
    let frames = stream::unfold(events, |mut events| async {
        while let Ok(Some(event)) = events.recv().await {
            let ConverseStreamOutput::ContentBlockDelta(delta) = event else {
                continue;
            };
            if let Some(text) = delta.delta().and_then(|delta| delta.as_text().ok()) {
                let data = serde_json::json!({"text": text});
                let frame = Bytes::from(format!("event: delta\ndata: {data}\n\n"));
                return Some((Ok(Frame::data(frame)), events));
            }
        }
        None
    });
    let response = Response::builder().header(CONTENT_TYPE, "text/event-stream");
    Ok(response.body(StreamBody::new(frames))?)
}
