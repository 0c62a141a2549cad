//! The requests' shapes, as the service's own model (botocore's `service-2.json`) has them.

use crate::shape::{Member, is_guardrail_version, is_model, may, must, text};

pub(super) use crate::shape::{Findings, Shape, check};

fn is_alphanumeric(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn is_session_id(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte))
}

/// `[a-zA-Z0-9](-*[a-zA-Z0-9]){0,256}`
fn is_client_token(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.ends_with(|last: char| last.is_ascii_alphanumeric())
}

/// `s3://.{1,128}`: bucket, slash and key of a document.
fn is_document_uri(text: &str) -> bool {
    text.strip_prefix("s3://").is_some_and(|rest| {
        (1..=128).contains(&rest.encode_utf16().count()) && !rest.contains(['\n', '\r', '\u{2028}', '\u{2029}'])
    })
}

/// `s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.{1,1024}`
fn is_metadata_uri(text: &str) -> bool {
    let Some((bucket, key)) = text.strip_prefix("s3://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let is_edge = |edge: char| edge.is_ascii_lowercase() || edge.is_ascii_digit();
    (3..=63).contains(&bucket.len())
        && bucket
            .chars()
            .all(|character| is_edge(character) || character == '.' || character == '-')
        && bucket.starts_with(is_edge)
        && bucket.ends_with(is_edge)
        && (1..=1_024).contains(&key.encode_utf16().count())
}

fn is_guardrail_id(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

const CLIENT_TOKEN: Member = may(
    "clientToken",
    Shape::Text {
        min: 33,
        max: 256,
        is_valid: is_client_token,
    },
);

const GUARDRAIL: Member = may(
    "guardrailConfiguration",
    Shape::Structure(&[
        must(
            "guardrailId",
            Shape::Text {
                min: 1,
                max: 64,
                is_valid: is_guardrail_id,
            },
        ),
        must(
            "guardrailVersion",
            Shape::Text {
                min: 1,
                max: 5,
                is_valid: is_guardrail_version,
            },
        ),
    ]),
);

const RETRIEVAL: Shape = Shape::Structure(&[must(
    "vectorSearchConfiguration",
    Shape::Structure(&[
        may("numberOfResults", Shape::Integer { min: 1, max: 100 }),
        may("overrideSearchType", Shape::Choice(&["HYBRID", "SEMANTIC"])),
        // A shape of its own: `retrieval::Filter`.
        may("filter", Shape::Any),
        may("implicitFilterConfiguration", Shape::Any),
        may("rerankingConfiguration", Shape::Any),
    ]),
)]);

const USER_CONTEXT: Member = may("userContext", Shape::Structure(&[must("userId", text(1, 2_048))]));

/// Retrieve. The model allows 20,000 characters of text, the quota on knowledge bases of this kind 1,000.
pub(super) const RETRIEVE: Shape = Shape::Structure(&[
    must(
        "retrievalQuery",
        Shape::Structure(&[
            may("text", text(1, 1_000)),
            may("type", Shape::Choice(&["TEXT", "IMAGE"])),
            may("image", Shape::Any),
        ]),
    ),
    may("retrievalConfiguration", RETRIEVAL),
    GUARDRAIL,
    may("nextToken", text(1, 2_048)),
    USER_CONTEXT,
]);

const TEMPLATE: Member = may(
    "promptTemplate",
    Shape::Structure(&[may("textPromptTemplate", text(1, 4_000))]),
);

const INFERENCE: Member = may(
    "inferenceConfig",
    Shape::Structure(&[may(
        "textInferenceConfig",
        Shape::Structure(&[
            may("maxTokens", Shape::Integer { min: 0, max: 65_536 }),
            may(
                "stopSequences",
                Shape::List {
                    of: &text(1, 1_000),
                    min: 0,
                    max: 4,
                },
            ),
            may("temperature", Shape::Number { min: 0.0, max: 1.0 }),
            may("topP", Shape::Number { min: 0.0, max: 1.0 }),
        ]),
    )]),
);

const PERFORMANCE: Member = may(
    "performanceConfig",
    Shape::Structure(&[may("latency", Shape::Choice(&["standard", "optimized"]))]),
);

/// RetrieveAndGenerate.
pub(super) const RETRIEVE_AND_GENERATE: Shape = Shape::Structure(&[
    must("input", Shape::Structure(&[must("text", text(1, 1_000))])),
    must(
        "retrieveAndGenerateConfiguration",
        Shape::Structure(&[
            must("type", Shape::Choice(&["KNOWLEDGE_BASE", "EXTERNAL_SOURCES"])),
            may(
                "knowledgeBaseConfiguration",
                Shape::Structure(&[
                    must(
                        "knowledgeBaseId",
                        Shape::Text {
                            min: 1,
                            max: 10,
                            is_valid: is_alphanumeric,
                        },
                    ),
                    must(
                        "modelArn",
                        Shape::Text {
                            min: 1,
                            max: 2_048,
                            is_valid: is_model,
                        },
                    ),
                    may("retrievalConfiguration", RETRIEVAL),
                    may(
                        "generationConfiguration",
                        Shape::Structure(&[
                            TEMPLATE,
                            INFERENCE,
                            GUARDRAIL,
                            PERFORMANCE,
                            may("additionalModelRequestFields", Shape::Any),
                        ]),
                    ),
                    may(
                        "orchestrationConfiguration",
                        Shape::Structure(&[
                            TEMPLATE,
                            INFERENCE,
                            PERFORMANCE,
                            may("additionalModelRequestFields", Shape::Any),
                            may(
                                "queryTransformationConfiguration",
                                Shape::Structure(&[must("type", Shape::Choice(&["QUERY_DECOMPOSITION"]))]),
                            ),
                        ]),
                    ),
                ]),
            ),
            may("externalSourcesConfiguration", Shape::Any),
        ]),
    ),
    may(
        "sessionConfiguration",
        Shape::Structure(&[must("kmsKeyArn", text(1, 2_048))]),
    ),
    may(
        "sessionId",
        Shape::Text {
            min: 2,
            max: 100,
            is_valid: is_session_id,
        },
    ),
    USER_CONTEXT,
]);

const S3_LOCATION: Shape = Shape::Structure(&[must(
    "uri",
    Shape::Text {
        min: 1,
        max: 2_048,
        is_valid: is_document_uri,
    },
)]);

/// IngestKnowledgeBaseDocuments.
pub(super) const INGEST: Shape = Shape::Structure(&[
    CLIENT_TOKEN,
    must(
        "documents",
        Shape::List {
            of: &Shape::Structure(&[
                must(
                    "content",
                    Shape::Structure(&[
                        must("dataSourceType", Shape::Choice(&["CUSTOM", "S3"])),
                        may("s3", Shape::Structure(&[must("s3Location", S3_LOCATION)])),
                        may("custom", Shape::Any),
                    ]),
                ),
                may(
                    "metadata",
                    Shape::Structure(&[
                        must("type", Shape::Choice(&["IN_LINE_ATTRIBUTE", "S3_LOCATION"])),
                        may("inlineAttributes", Shape::Any),
                        may(
                            "s3Location",
                            Shape::Structure(&[
                                must(
                                    "uri",
                                    Shape::Text {
                                        min: 1,
                                        max: 1_024,
                                        is_valid: is_metadata_uri,
                                    },
                                ),
                                may(
                                    "bucketOwnerAccountId",
                                    Shape::Text {
                                        min: 12,
                                        max: 12,
                                        is_valid: is_alphanumeric,
                                    },
                                ),
                            ]),
                        ),
                    ]),
                ),
            ]),
            min: 1,
            max: 10,
        },
    ),
]);

/// GetKnowledgeBaseDocuments and DeleteKnowledgeBaseDocuments.
pub(super) const IDENTIFIERS: Shape = Shape::Structure(&[
    CLIENT_TOKEN,
    must(
        "documentIdentifiers",
        Shape::List {
            of: &Shape::Structure(&[
                must("dataSourceType", Shape::Choice(&["CUSTOM", "S3"])),
                may("s3", S3_LOCATION),
                may("custom", Shape::Any),
            ]),
            min: 1,
            max: 10,
        },
    ),
]);

/// StartIngestionJob.
pub(super) const START_JOB: Shape = Shape::Structure(&[CLIENT_TOKEN, may("description", text(1, 200))]);

/// No body.
pub(super) const NOTHING: Shape = Shape::Structure(&[]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_the_model() {
        assert!(is_document_uri(&format!("s3://{}", "x".repeat(128))));
        assert!(!is_document_uri(&format!("s3://{}", "x".repeat(129))));
        assert!(!is_document_uri("https://example.com/a"));
        assert!(is_metadata_uri("s3://bucket/t/acme/a.txt.metadata.json"));
        assert!(!is_metadata_uri("s3://Bucket/a"));
        assert!(is_client_token("a-b") && !is_client_token("-a") && !is_client_token("a_b"));
        assert!(is_model("anthropic.claude-sonnet-4-20250514-v1:0"));
        assert!(is_model(
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-20250514-v1:0"
        ));
        assert!(is_model(
            "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0"
        ));
        assert!(!is_model("arn:aws:s3:::bucket") && !is_model("Some Model"));
        assert!(is_guardrail_version("DRAFT") && is_guardrail_version("12") && !is_guardrail_version("01"));
    }
}
