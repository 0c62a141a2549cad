//! The command line: what `cargo run` does, and what is done with a stack that runs.

mod client;
mod demo;
mod question;
mod telling;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};

use crate::event_stream::Pace;
use crate::model::open_ai::OpenAi;
use crate::stack::StackConfig;

/// Arguments of the local stack's binary.
#[derive(Debug, Parser)]
#[command(
    name = "bulkhead-local",
    about = "Bulkhead on this machine: the real functions behind emulated AWS services"
)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What writes answers.
#[derive(Debug, Default, Args)]
struct ModelArguments {
    /// Let the model of a server that speaks OpenAI's chat completions answer (Ollama: http://127.0.0.1:11434/v1).
    /// Prompts go there, with the passages in them.
    #[arg(long, global = true, value_name = "URL", env = "BULKHEAD_LOCAL_MODEL_URL")]
    model_url: Option<String>,
    /// The name of that model.
    #[arg(long, global = true, value_name = "NAME", env = "BULKHEAD_LOCAL_MODEL_NAME")]
    model_name: Option<String>,
    /// How fast the model that comes with the stack speaks; 0 for all at once. Without it 50 when the stack stays up.
    #[arg(long, global = true, value_name = "N", env = "BULKHEAD_LOCAL_TOKENS_PER_SECOND")]
    tokens_per_second: Option<u32>,
}

impl ModelArguments {
    /// Has a stack answer like this; `otherwise` is the pace where none is given, in tokens per second.
    fn apply(&self, config: &mut StackConfig, otherwise: u32) -> anyhow::Result<()> {
        config.pace = Pace::per_second(self.tokens_per_second.unwrap_or(otherwise));
        let model = match (&self.model_url, &self.model_name) {
            (Some(url), Some(name)) => OpenAi::new(url, name)?,
            (None, None) => return Ok(()),
            _ => anyhow::bail!("a model needs both --model-url and --model-name"),
        };
        config.change_models = Some(Box::new(move |config| config.model = Some(Arc::new(model))));
        Ok(())
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the stack with the demo tenants and keep it up (the default).
    Up(UpArguments),
    /// Do the main job on a stack that forgets, and exit: 0 if every answer was as it should be.
    Demo,
    /// Print a token for a tenant's user (or, with role operator and no tenant, an operator). Takes what it is asked for from
    /// variables too, as `bulkhead smoke --token-command` sets them.
    Token(TokenArguments),
    /// Upload documents as a tenant's admin and wait until they are indexed.
    Upload(UploadArguments),
    /// Ask a question as a tenant's reader.
    Ask(AskArguments),
}

#[derive(Debug, Default, Args)]
struct UpArguments {
    /// Port of the gateway; 0 for any that is free.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Directory that state is kept in.
    #[arg(long, value_name = "DIR", conflicts_with = "ephemeral")]
    data: Option<PathBuf>,
    /// Keep no state.
    #[arg(long)]
    ephemeral: bool,
    /// Don't create the demo tenants and their documents.
    #[arg(long)]
    no_demo: bool,
    /// Create this tenant; may be repeated.
    #[arg(long, value_name = "ID", num_args = 1..)]
    tenant: Vec<String>,
    /// Write where the stack listens to this file too, when it is ready.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// Which running stack is meant.
#[derive(Debug, Args)]
struct Target {
    /// The stack that wrote this file.
    #[arg(long, value_name = "FILE", conflicts_with = "base_url")]
    ready_file: Option<PathBuf>,
    /// The stack whose gateway is here. Without either: the newest that answers.
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
}

#[derive(Debug, Args)]
struct TokenArguments {
    #[command(flatten)]
    target: Target,
    /// The tenant.
    #[arg(long, value_name = "ID", env = "BULKHEAD_TOKEN_TENANT")]
    tenant: Option<String>,
    /// `reader`, `admin` or `operator`; may be repeated.
    #[arg(long, value_name = "ROLE", default_value = "reader", env = "BULKHEAD_TOKEN_ROLE")]
    role: Vec<String>,
    /// A group of the user; may be repeated.
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// The user.
    #[arg(long, default_value = "alice", env = "BULKHEAD_TOKEN_USER")]
    user: String,
    /// An operator's token: no tenant, role operator.
    #[arg(long, conflicts_with_all = ["tenant"])]
    operator: bool,
}

#[derive(Debug, Args)]
struct UploadArguments {
    #[command(flatten)]
    target: Target,
    /// The tenant.
    #[arg(long, value_name = "ID")]
    tenant: String,
    /// The documents.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct AskArguments {
    #[command(flatten)]
    target: Target,
    /// The tenant.
    #[arg(long, value_name = "ID")]
    tenant: String,
    /// Show the answer as it comes.
    #[arg(long)]
    stream: bool,
    /// The question.
    question: String,
}

impl Arguments {
    /// Does what the command line says.
    ///
    /// # Errors
    /// It could not be done; the message is for the person at the keyboard.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command.unwrap_or(Command::Up(UpArguments {
            port: 8080,
            ..UpArguments::default()
        })) {
            Command::Up(arguments) => up::run(arguments, &self.model).await,
            Command::Demo => demo::run(&self.model).await,
            Command::Token(arguments) => client::token(arguments).await,
            Command::Upload(arguments) => client::upload(arguments).await,
            Command::Ask(arguments) => client::ask(arguments).await,
        }
    }
}

/// Writes a line to standard output. A reader that has gone (`| head`) is no failure of ours.
macro_rules! say {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout().lock(), $($argument)*);
    }};
}
use say;
