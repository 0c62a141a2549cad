//! The events of a custom resource
//! (<https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-requests.html>).
//!
//! An event is read twice. First what an answer needs, leniently, so that CloudFormation is told of an event that
//! nothing can be done with, instead of waiting for an hour. Then the request.

use aws_lambda_events::cloudformation::CloudFormationCustomResourceRequest as Request;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Trouble;

/// What an answer needs of its event.
///
/// Not `Debug`: the URL is signed, and whoever has it can answer.
pub(crate) struct Envelope {
    /// Where the answer goes. Who chooses it is whoever may invoke the function, which in the template is nobody but
    /// CloudFormation.
    pub(crate) response_url: String,
    /// The stack's ARN, which no later stack of the same name has again.
    pub(crate) stack_id: String,
    /// The request's id.
    pub(crate) request_id: String,
    /// The resource's name in the template.
    pub(crate) logical_resource_id: String,
    /// The resource's id, once it has one.
    pub(crate) physical_resource_id: Option<String>,
}

impl Envelope {
    /// Reads it; nothing if there is no address to answer to. Whatever else is missing is empty.
    pub(crate) fn read(event: &Value) -> Option<Self> {
        let text = |name: &str| event.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let owned = |name: &str| text(name).unwrap_or_default().to_owned();
        Some(Self {
            response_url: text("ResponseURL")?.to_owned(),
            stack_id: owned("StackId"),
            request_id: owned("RequestId"),
            logical_resource_id: owned("LogicalResourceId"),
            physical_resource_id: text("PhysicalResourceId").map(str::to_owned),
        })
    }
}

/// What the template says is to be configured. CloudFormation puts members of its own beside these.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Properties {
    /// The log group that Bedrock writes to.
    pub(crate) log_group_name: String,
    /// The role that it writes with.
    pub(crate) role_arn: String,
}

/// What is to become of the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// It is to be, the first time or with other properties.
    Made,
    /// It is to go.
    Gone,
}

impl Wish {
    /// Reads the request; nothing if it is to delete what has unreadable properties, because no resource was ever made
    /// with such. As an error it would fail for ever, and the stack with it.
    ///
    /// # Errors
    /// [`Trouble::Event`].
    pub(crate) fn read(event: &Value) -> Result<Option<(Self, Properties)>, Trouble> {
        // What serde says of an error quotes values, and one of them is signed.
        let request = serde_json::from_value::<Request>(event.clone()).map_err(|_| Trouble::Event)?;
        let (wish, properties) = match request {
            Request::Create(request) => (Self::Made, request.resource_properties),
            Request::Update(request) => (Self::Made, request.resource_properties),
            Request::Delete(request) => (Self::Gone, request.resource_properties),
            _ => return Err(Trouble::Event),
        };
        match (wish, serde_json::from_value(properties)) {
            (_, Ok(properties)) => Ok(Some((wish, properties))),
            (Self::Gone, Err(_)) => Ok(None),
            (Self::Made, Err(_)) => Err(Trouble::Event),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(request_type: &str) -> Value {
        json!({
            "RequestType": request_type,
            "ResponseURL": "https://responses.example.com/?signature=secret",
            "StackId": "arn:aws:cloudformation:us-east-1:123456789012:stack/bulkhead/1",
            "RequestId": "request-1",
            "ServiceToken": "arn:aws:lambda:us-east-1:123456789012:function:model-logging",
            "ResourceType": "Custom::ModelInvocationLogging",
            "LogicalResourceId": "ModelInvocationLoggingSetting",
            "PhysicalResourceId": "/bulkhead/bulkhead/before",
            "ResourceProperties": {"ServiceToken": "arn", "LogGroupName": "logs", "RoleArn": "role"},
            "OldResourceProperties": {"ServiceToken": "arn"},
        })
    }

    #[test]
    fn every_kind_of_request_is_read() {
        let properties = Properties {
            log_group_name: "logs".to_owned(),
            role_arn: "role".to_owned(),
        };
        for (kind, wish) in [("Create", Wish::Made), ("Update", Wish::Made), ("Delete", Wish::Gone)] {
            assert_eq!(Wish::read(&event(kind)).unwrap(), Some((wish, properties.clone())));
        }
        assert!(matches!(Wish::read(&event("Rename")), Err(Trouble::Event)));
    }

    #[test]
    fn unreadable_properties_fail_everything_but_a_deletion() {
        for properties in [json!({}), json!({"LogGroupName": 1, "RoleArn": "role"}), json!("none")] {
            let of = |request_type: &str| {
                let mut event = event(request_type);
                event["ResourceProperties"] = properties.clone();
                Wish::read(&event)
            };
            assert!(matches!(of("Create"), Err(Trouble::Event)), "{properties}");
            assert!(matches!(of("Update"), Err(Trouble::Event)), "{properties}");
            assert_eq!(of("Delete").unwrap(), None, "{properties}");
        }
    }

    #[test]
    fn an_address_is_all_that_an_answer_needs() {
        let envelope = Envelope::read(&json!({"ResponseURL": "https://responses.example.com/", "StackId": 7})).unwrap();
        assert_eq!(envelope.stack_id, "");
        assert_eq!(envelope.physical_resource_id, None);
        assert!(Envelope::read(&json!({"ResponseURL": ""})).is_none());
        assert!(Envelope::read(&json!([])).is_none());
    }
}
