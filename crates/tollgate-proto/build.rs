//! Compiles `proto/` without protoc and keeps the descriptors for reflection.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 9] = [
    "chat", "gateway", "jobs", "keys", "limits", "pipeline", "prices", "reports", "targets",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let files: Vec<_> = FILES
        .iter()
        .map(|name| root.join(format!("tollgate/v1/{name}.proto")))
        .collect();
    let descriptors = protox::compile(files, [&root])?;
    fs::write(
        PathBuf::from(env::var("OUT_DIR")?).join("tollgate.bin"),
        descriptors.encode_to_vec(),
    )?;
    tonic_prost_build::configure()
        .bytes(".tollgate.v1.Envelope.inline")
        .bytes(".tollgate.v1.Frame.payload")
        .bytes(".tollgate.v1.Payload.inline")
        .bytes(".tollgate.v1.Job.body")
        // Prompts and answers must not be printable by accident.
        .skip_debug([
            ".tollgate.v1.CompleteRequest",
            ".tollgate.v1.CompleteResponse",
            ".tollgate.v1.CompleteEvent",
            ".tollgate.v1.Message",
            ".tollgate.v1.Part",
            ".tollgate.v1.Media",
            ".tollgate.v1.InlineMedia",
            ".tollgate.v1.Image",
            ".tollgate.v1.Audio",
            ".tollgate.v1.File",
            ".tollgate.v1.ReasoningBlock",
            ".tollgate.v1.Tool",
            ".tollgate.v1.ToolCall",
            ".tollgate.v1.ToolResult",
            ".tollgate.v1.Citation",
            ".tollgate.v1.TokenLogprob",
            ".tollgate.v1.EmbedRequest",
            ".tollgate.v1.EmbedInput",
            ".tollgate.v1.EmbedResponse",
            ".tollgate.v1.TokenIds",
            ".tollgate.v1.Vector",
            ".tollgate.v1.ResponseFormat",
            ".tollgate.v1.Envelope",
            ".tollgate.v1.Frame",
            ".tollgate.v1.Failure",
            ".tollgate.v1.End",
            ".tollgate.v1.Refused",
            ".tollgate.v1.DeliverResponse",
            ".tollgate.v1.DeliverRequest",
            ".tollgate.v1.ConcludeRequest",
            ".tollgate.v1.SubmitJobRequest",
            ".tollgate.v1.Job",
            ".tollgate.v1.JobError",
            ".tollgate.v1.ListJobsResponse",
            ".tollgate.v1.ListJobsAnswer",
            ".tollgate.v1.CountJobsAnswer",
            ".tollgate.v1.Payload",
            ".tollgate.v1.JobRecord",
            ".tollgate.v1.JobNoteRecord",
            ".tollgate.v1.JobEndRecord",
            // Secrets.
            ".tollgate.v1.IssuedKey",
        ])
        .compile_fds(descriptors)?;
    Ok(())
}
