#!/usr/bin/env python3
"""Conformance of the local AWS services, as boto3 sees them.

Unmodified boto3 against AWS_ENDPOINT_URL with the usual AWS_* variables, on the bucket BULKHEAD_BUCKET_NAME and the table
BULKHEAD_TABLE_NAME (pk and sk strings). Bedrock is checked where BULKHEAD_KNOWLEDGE_BASE_ID names a knowledge base: it
answers "When was the lighthouse built?" for the tenant BULKHEAD_TENANT, and version 1 of the guardrail
BULKHEAD_GUARDRAIL_ID blocks the word "dynamite", and streams of the models example.throttled-v1:0 and example.cut-v1:0
end so after their second event. Prints one line per check; exit code 1 if any fails. Everything it
writes stands under a prefix of its own, so it can run beside others:

    cargo run -p bulkhead-local --example aws -- python3 tests/boto3/check.py
"""

import base64
import hashlib
import json
import os
import sys
import threading
import urllib.error
import urllib.request
import uuid
import zlib

import boto3
import botocore
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError

BUCKET = os.environ["BULKHEAD_BUCKET_NAME"]
TABLE = os.environ["BULKHEAD_TABLE_NAME"]
KNOWLEDGE_BASE = os.environ.get("BULKHEAD_KNOWLEDGE_BASE_ID")
TENANT = os.environ.get("BULKHEAD_TENANT")
GUARDRAIL = os.environ.get("BULKHEAD_GUARDRAIL_ID")
MODEL = f"arn:aws:bedrock:{os.environ['AWS_REGION']}::foundation-model/amazon.nova-lite-v1:0"
RUN = f"check/{uuid.uuid4().hex}/"

s3 = boto3.client("s3")
dynamodb = boto3.client("dynamodb")
knowledge = boto3.client("bedrock-agent-runtime")
runtime = boto3.client("bedrock-runtime")
bedrock = boto3.client("bedrock")
ssm = boto3.client("ssm")
checks = []


def check(function):
    checks.append(function)
    return function


def check_bedrock(function):
    return check(function) if KNOWLEDGE_BASE else function


def refused(call, *codes, status=None):
    """The error that the call has to end with, by code (or status, where a HEAD has no body)."""
    try:
        call()
    except ClientError as error:
        got = (error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"])
        assert got[0] in codes, f"{got} is none of {codes}"
        assert status is None or got[1] == status, f"{got} is not {status}"
        return error.response
    raise AssertionError(f"was not refused with {codes}")


def fetch(url, method="GET", data=None, headers=None):
    request = urllib.request.Request(url, method=method, data=data, headers=headers or {})
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, dict(response.headers), response.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def put(key, body=b"x", **more):
    return s3.put_object(Bucket=BUCKET, Key=RUN + key, Body=body, **more)


def get(key, **more):
    return s3.get_object(Bucket=BUCKET, Key=RUN + key, **more)


def head(key, **more):
    return s3.head_object(Bucket=BUCKET, Key=RUN + key, **more)


# S3


@check
def s3_put_get_and_head_agree():
    body = os.urandom(100_000)
    answer = put("a b+c/ä.pdf", body, ContentType="application/pdf", ContentDisposition="attachment", Metadata={"id": "1"})
    assert answer["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    for got in (get("a b+c/ä.pdf"), head("a b+c/ä.pdf")):
        assert got["ContentType"] == "application/pdf"
        assert got["ContentDisposition"] == "attachment"
        assert got["Metadata"] == {"id": "1"}
        assert got["ContentLength"] == len(body)
        assert got["ETag"] == answer["ETag"]
    assert get("a b+c/ä.pdf")["Body"].read() == body


@check
def s3_encryption_is_the_default_one():
    assert put("encrypted", ServerSideEncryption="AES256")["ServerSideEncryption"] == "AES256"
    refused(lambda: put("encrypted", ServerSideEncryption="aws:kms"), "NotImplemented", status=501)


@check
def s3_ranges():
    put("range", b"0123456789")
    for range_, expected in (("bytes=2-4", b"234"), ("bytes=7-", b"789"), ("bytes=-2", b"89")):
        answer = get("range", Range=range_)
        assert answer["Body"].read() == expected
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206
    refused(lambda: get("range", Range="bytes=10-"), "InvalidRange", status=416)


@check
def s3_missing_things_are_missing():
    refused(lambda: get("none"), "NoSuchKey", status=404)
    refused(lambda: head("none"), "404", status=404)
    refused(lambda: s3.get_object(Bucket="no-such-bucket-here", Key="k"), "NoSuchBucket", status=404)
    s3.delete_object(Bucket=BUCKET, Key=RUN + "none")


@check
def s3_checksums_are_verified_and_kept():
    body = b"hello"
    for algorithm, value in (
        ("SHA256", base64.b64encode(hashlib.sha256(body).digest())),
        ("SHA1", base64.b64encode(hashlib.sha1(body).digest())),
        ("CRC32", base64.b64encode(zlib.crc32(body).to_bytes(4, "big"))),
    ):
        value = value.decode()
        answer = put(f"sum/{algorithm}", body, **{f"Checksum{algorithm}": value})
        assert answer[f"Checksum{algorithm}"] == value
        assert head(f"sum/{algorithm}", ChecksumMode="ENABLED")[f"Checksum{algorithm}"] == value
        wrong = base64.b64encode(b"\0" * len(base64.b64decode(value))).decode()
        refused(lambda: put(f"sum/wrong/{algorithm}", body, **{f"Checksum{algorithm}": wrong}), "BadDigest", status=400)
        refused(lambda: get(f"sum/wrong/{algorithm}"), "NoSuchKey")
    assert put("sum/asked", body, ChecksumAlgorithm="SHA256")["ChecksumSHA256"]
    refused(lambda: put("sum/md5", body, ContentMD5=base64.b64encode(b"\0" * 16).decode()), "BadDigest", status=400)
    refused(lambda: get("sum/md5"), "NoSuchKey")


@check
def s3_conditional_writes():
    etag = put("once", b"1", IfNoneMatch="*")["ETag"]
    refused(lambda: put("once", b"2", IfNoneMatch="*"), "PreconditionFailed", status=412)
    refused(lambda: put("once", b"2", IfMatch='"0"'), "PreconditionFailed", status=412)
    put("once", b"2", IfMatch=etag)
    assert get("once")["Body"].read() == b"2"
    winners = []

    def race(number):
        try:
            put("race", str(number).encode(), IfNoneMatch="*")
            winners.append(number)
        except ClientError:
            pass

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1, winners
    assert get("race")["Body"].read() == str(winners[0]).encode()


@check
def s3_conditional_reads():
    etag = put("read", b"1")["ETag"]
    assert get("read", IfMatch=etag)["Body"].read() == b"1"
    refused(lambda: get("read", IfMatch='"0"'), "PreconditionFailed", status=412)
    refused(lambda: get("read", IfNoneMatch=etag), "304", "NotModified", status=304)
    refused(lambda: get("read", IfModifiedSince=head("read")["LastModified"]), "304", "NotModified", status=304)


@check
def s3_copies_keep_or_replace_metadata():
    source = {"Bucket": BUCKET, "Key": RUN + "copy/from +ä"}
    put("copy/from +ä", b"hello", ContentType="application/pdf", Metadata={"a": "1"}, ChecksumAlgorithm="SHA256")
    answer = s3.copy_object(Bucket=BUCKET, Key=RUN + "copy/to", CopySource=source)
    assert answer["CopyObjectResult"]["ChecksumSHA256"] == base64.b64encode(hashlib.sha256(b"hello").digest()).decode()
    kept = head("copy/to", ChecksumMode="ENABLED")
    assert (kept["ContentType"], kept["Metadata"]) == ("application/pdf", {"a": "1"})
    assert kept["ChecksumSHA256"] == answer["CopyObjectResult"]["ChecksumSHA256"]
    s3.copy_object(
        Bucket=BUCKET,
        Key=RUN + "copy/replaced",
        CopySource=source,
        MetadataDirective="REPLACE",
        ContentType="text/plain",
        Metadata={"b": "2"},
    )
    replaced = head("copy/replaced")
    assert (replaced["ContentType"], replaced["Metadata"]) == ("text/plain", {"b": "2"})
    assert get("copy/replaced")["Body"].read() == b"hello"
    missing = {"Bucket": BUCKET, "Key": RUN + "copy/none"}
    refused(lambda: s3.copy_object(Bucket=BUCKET, Key=RUN + "copy/x", CopySource=missing), "NoSuchKey", status=404)
    refused(
        lambda: s3.copy_object(Bucket=BUCKET, Key=RUN + "copy/x", CopySource=source, CopySourceIfMatch='"0"'),
        "PreconditionFailed",
        status=412,
    )


@check
def s3_keys_never_become_paths():
    put("t1/../t2/x", b"dots")
    refused(lambda: get("t2/x"), "NoSuchKey", status=404)
    put("t2/x", b"plain")
    put("t2//x", b"slashes")
    for key, body in (("t1/../t2/x", b"dots"), ("t2/x", b"plain"), ("t2//x", b"slashes")):
        assert get(key)["Body"].read() == body, key
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=RUN + "t1/")
    assert [entry["Key"] for entry in listed["Contents"]] == [RUN + "t1/../t2/x"]


@check
def s3_listings_page_and_group():
    keys = [f"list/{name}" for name in ("Z", "a/1", "a/2", "a b", "b+c", "ä", "a&b<c>")]
    for key in keys:
        put(key)
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=BUCKET, Prefix=RUN + "list/", PaginationConfig={"PageSize": 2}
    )
    seen = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    assert seen == sorted((RUN + key for key in keys), key=str.encode), seen
    grouped = s3.list_objects_v2(Bucket=BUCKET, Prefix=RUN + "list/", Delimiter="/")
    assert [prefix["Prefix"] for prefix in grouped["CommonPrefixes"]] == [RUN + "list/a/"]
    assert grouped["KeyCount"] == len(keys) - 1
    after = s3.list_objects_v2(Bucket=BUCKET, Prefix=RUN + "list/", StartAfter=RUN + "list/b+c")
    assert [entry["Key"] for entry in after["Contents"]] == [RUN + "list/ä"]
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix=RUN + "nothing/")


@check
def s3_deletes_many():
    keys = ["delete/1", "delete/2", "delete/a&b"]
    for key in keys:
        put(key)
    answer = s3.delete_objects(
        Bucket=BUCKET, Delete={"Objects": [{"Key": RUN + key} for key in [*keys, "delete/none"]]}
    )
    assert len(answer["Deleted"]) == 4
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix=RUN + "delete/")


@check
def s3_presigned_urls():
    sigv4 = boto3.client("s3", config=Config(signature_version="s3v4"))
    put("signed", b"<p>hello", ContentType="text/html")
    params = {
        "Bucket": BUCKET,
        "Key": RUN + "signed",
        "ResponseContentType": "text/plain",
        "ResponseContentDisposition": 'attachment; filename="a b.txt"',
    }
    url = sigv4.generate_presigned_url("get_object", Params=params, ExpiresIn=60)
    status, headers, body = fetch(url)
    assert (status, body) == (200, b"<p>hello"), (status, body)
    headers = {name.lower(): value for name, value in headers.items()}
    assert headers["content-type"] == "text/plain"
    assert headers["content-disposition"] == 'attachment; filename="a b.txt"'
    for change in (("signed?", "other?"), ("text%2Fplain", "text%2Fhtml"), ("Expires=60", "Expires=61")):
        assert change[0] in url, change
        status, _, body = fetch(url.replace(*change))
        assert status == 403 and b"SignatureDoesNotMatch" in body, (change, status, body)
    assert fetch(url, method="DELETE")[0] == 403
    params = {"Bucket": BUCKET, "Key": RUN + "uploaded", "ContentType": "text/plain"}
    url = sigv4.generate_presigned_url("put_object", Params=params, ExpiresIn=60)
    assert fetch(url, "PUT", b"up", {"Content-Type": "text/plain"})[0] == 200
    assert fetch(url, "PUT", b"up", {"Content-Type": "text/html"})[0] == 403
    assert get("uploaded")["Body"].read() == b"up"


@check
def s3_strangers_are_refused():
    put("secret")
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    status, _, body = fetch(f"{endpoint}/{BUCKET}/{RUN}secret")
    assert status == 403 and b"<Code>AccessDenied</Code>" in body, (status, body)
    unsigned = boto3.client("s3", config=Config(signature_version=botocore.UNSIGNED))
    refused(lambda: unsigned.get_object(Bucket=BUCKET, Key=RUN + "secret"), "AccessDenied", status=403)
    own = boto3.Session().get_credentials()
    for credentials, code in (
        ((own.access_key, "wrong", own.token), "SignatureDoesNotMatch"),
        (("ASIAAAAAAAAAAAAAAAAA", own.secret_key, own.token), "InvalidAccessKeyId"),
        ((own.access_key, own.secret_key, "wrong"), "InvalidToken"),
    ):
        stranger = boto3.client(
            "s3",
            aws_access_key_id=credentials[0],
            aws_secret_access_key=credentials[1],
            aws_session_token=credentials[2],
        )
        refused(lambda: stranger.get_object(Bucket=BUCKET, Key=RUN + "secret"), code)


@check
def s3_other_operations_are_named():
    for call in (
        lambda: s3.put_object_tagging(Bucket=BUCKET, Key=RUN + "k", Tagging={"TagSet": []}),
        lambda: s3.create_multipart_upload(Bucket=BUCKET, Key=RUN + "k"),
        lambda: s3.list_buckets(),
        lambda: put("k", ACL="public-read"),
    ):
        assert "not emulated" in refused(call, "NotImplemented", status=501)["Error"]["Message"]


# DynamoDB


def key(pk, sk="x"):
    return {"pk": {"S": RUN + pk}, "sk": {"S": sk}}


@check
def dynamodb_items_are_written_and_read():
    item = {**key("item"), "n": {"N": "1"}, "l": {"L": [{"S": "a"}, {"BOOL": True}]}, "nothing": {"NULL": True}}
    dynamodb.put_item(TableName=TABLE, Item=item)
    assert dynamodb.get_item(TableName=TABLE, Key=key("item"), ConsistentRead=True)["Item"] == item
    assert "Item" not in dynamodb.get_item(TableName=TABLE, Key=key("none"))
    dynamodb.delete_item(TableName=TABLE, Key=key("item"))
    assert "Item" not in dynamodb.get_item(TableName=TABLE, Key=key("item"))


@check
def dynamodb_conditions_hold():
    once = {"TableName": TABLE, "Item": {**key("once"), "v": {"N": "1"}}, "ConditionExpression": "attribute_not_exists(pk)"}
    dynamodb.put_item(**once)
    answer = refused(
        lambda: dynamodb.put_item(**once, ReturnValuesOnConditionCheckFailure="ALL_OLD"),
        "ConditionalCheckFailedException",
        status=400,
    )
    assert answer["Item"]["v"] == {"N": "1"}


@check
def dynamodb_updates_are_atomic():
    def count():
        dynamodb.update_item(
            TableName=TABLE,
            Key=key("count"),
            UpdateExpression="ADD #c :one SET #t = if_not_exists(#t, :t)",
            ExpressionAttributeNames={"#c": "count", "#t": "ttl"},
            ExpressionAttributeValues={":one": {"N": "1"}, ":t": {"N": "99999999999"}},
        )

    threads = [threading.Thread(target=count) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dynamodb.get_item(TableName=TABLE, Key=key("count"))["Item"]["count"] == {"N": "16"}


@check
def dynamodb_queries_page():
    for number in range(5):
        dynamodb.put_item(TableName=TABLE, Item=key("query", f"DOC#{number}"))
    dynamodb.put_item(TableName=TABLE, Item=key("query", "OTHER"))
    pages = dynamodb.get_paginator("query").paginate(
        TableName=TABLE,
        KeyConditionExpression="pk = :p AND begins_with(sk, :s)",
        ExpressionAttributeValues={":p": {"S": RUN + "query"}, ":s": {"S": "DOC#"}},
        ScanIndexForward=False,
        PaginationConfig={"PageSize": 2},
    )
    found = [item["sk"]["S"] for page in pages for item in page["Items"]]
    assert found == [f"DOC#{number}" for number in (4, 3, 2, 1, 0)], found


@check
def dynamodb_batches():
    puts = [{"PutRequest": {"Item": key("batch", str(number))}} for number in range(3)]
    assert not dynamodb.batch_write_item(RequestItems={TABLE: puts})["UnprocessedItems"]
    keys = [key("batch", str(number)) for number in range(4)]
    found = dynamodb.batch_get_item(RequestItems={TABLE: {"Keys": keys}})["Responses"][TABLE]
    assert len(found) == 3
    refused(
        lambda: dynamodb.batch_write_item(RequestItems={TABLE: [puts[0]] * 26}), "ValidationException", status=400
    )


@check
def dynamodb_transactions_are_all_or_nothing():
    put_ = {"Put": {"TableName": TABLE, "Item": key("transaction", "1")}}
    absent = {
        "ConditionCheck": {
            "TableName": TABLE,
            "Key": key("transaction", "2"),
            "ConditionExpression": "attribute_exists(pk)",
        }
    }
    answer = refused(
        lambda: dynamodb.transact_write_items(TransactItems=[put_, absent]), "TransactionCanceledException", status=400
    )
    assert [reason["Code"] for reason in answer["CancellationReasons"]] == ["None", "ConditionalCheckFailed"]
    assert "Item" not in dynamodb.get_item(TableName=TABLE, Key=key("transaction", "1"))
    token = uuid.uuid4().hex
    for _ in range(2):
        dynamodb.transact_write_items(TransactItems=[put_], ClientRequestToken=token)
    assert "Item" in dynamodb.get_item(TableName=TABLE, Key=key("transaction", "1"))


@check
def dynamodb_strangers_are_refused():
    own = boto3.Session().get_credentials()
    for credentials, code in (
        ((own.access_key, "wrong", own.token), "InvalidSignatureException"),
        (("ASIAAAAAAAAAAAAAAAAA", own.secret_key, own.token), "UnrecognizedClientException"),
        ((own.access_key, own.secret_key, "wrong"), "UnrecognizedClientException"),
    ):
        stranger = boto3.client(
            "dynamodb",
            aws_access_key_id=credentials[0],
            aws_secret_access_key=credentials[1],
            aws_session_token=credentials[2],
        )
        refused(lambda: stranger.get_item(TableName=TABLE, Key=key("x")), code, status=400)
    headers = {"X-Amz-Target": "DynamoDB_20120810.GetItem", "Content-Type": "application/x-amz-json-1.0"}
    status, _, body = fetch(os.environ["AWS_ENDPOINT_URL"] + "/", "POST", b"{}", headers)
    assert status == 400 and json.loads(body)["__type"].endswith("#MissingAuthenticationTokenException")


@check
def dynamodb_other_operations_are_named():
    for call, name in (
        (lambda: dynamodb.scan(TableName=TABLE), "Scan"),
        (lambda: dynamodb.describe_table(TableName=TABLE), "DescribeTable"),
        (lambda: dynamodb.execute_statement(Statement=f'SELECT * FROM "{TABLE}"'), "ExecuteStatement"),
        (lambda: dynamodb.delete_table(TableName=TABLE), "DeleteTable"),
    ):
        assert name in refused(call, "NotImplemented", status=501)["Error"]["Message"]
    refused(lambda: dynamodb.get_item(TableName="elsewhere", Key=key("x")), "ResourceNotFoundException", status=400)


# Bedrock

QUESTION = "When was the lighthouse built?"
GUARDED = {"guardrailId": GUARDRAIL, "guardrailVersion": "1"}


def retrieval(text, guarded=False, **more):
    search = {"filter": {"equals": {"key": "tenantId", "value": TENANT}}, "numberOfResults": 3}
    generation = {"promptTemplate": {"textPromptTemplate": "$search_results$ $output_format_instructions$"}}
    if guarded:
        generation["guardrailConfiguration"] = GUARDED
    return {
        "input": {"text": text},
        "retrieveAndGenerateConfiguration": {
            "type": "KNOWLEDGE_BASE",
            "knowledgeBaseConfiguration": {
                "knowledgeBaseId": KNOWLEDGE_BASE,
                "modelArn": MODEL,
                "retrievalConfiguration": {"vectorSearchConfiguration": search},
                "generationConfiguration": generation,
            },
        },
        **more,
    }


def conversation(text, guarded=False):
    passage = '<passage number="1">The lighthouse was built in 1862.</passage>'
    block = {"guardContent": {"text": {"text": f"<question>{text}</question>"}}}
    more = {"guardrailConfig": {"guardrailIdentifier": GUARDRAIL, "guardrailVersion": "1"}} if guarded else {}
    return {
        "modelId": MODEL,
        "system": [{"text": "Answer from the passages."}],
        "messages": [{"role": "user", "content": [{"text": passage}, block]}],
        "inferenceConfig": {"maxTokens": 100, "temperature": 0},
        **more,
    }


@check_bedrock
def bedrock_retrieves():
    search = {"filter": {"equals": {"key": "tenantId", "value": TENANT}}}
    answer = knowledge.retrieve(
        knowledgeBaseId=KNOWLEDGE_BASE,
        retrievalQuery={"text": QUESTION},
        retrievalConfiguration={"vectorSearchConfiguration": search},
    )
    assert any("1862" in result["content"]["text"] for result in answer["retrievalResults"]), answer
    assert answer["guardrailAction"] == "NONE"


@check_bedrock
def bedrock_streams_what_it_retrieves_and_generates():
    whole = knowledge.retrieve_and_generate(**retrieval(QUESTION))
    answer = knowledge.retrieve_and_generate_stream(**retrieval(QUESTION, sessionId=whole["sessionId"]))
    assert answer["sessionId"] == whole["sessionId"]
    events = list(answer["stream"])
    kinds = [kind for event in events for kind in event]
    assert set(kinds) == {"output", "citation"}, kinds
    assert kinds[0] == "output" and kinds.count("output") > 1, kinds
    text = "".join(event["output"]["text"] for event in events if "output" in event)
    assert text == whole["output"]["text"] and "1862" in text, text
    cited = [event["citation"] for event in events if "citation" in event]
    for event, citation in zip(cited, whole["citations"], strict=True):
        assert event["generatedResponsePart"] == citation["generatedResponsePart"]
        assert event["retrievedReferences"] == citation["retrievedReferences"]
    refused(
        lambda: knowledge.retrieve_and_generate_stream(**retrieval(QUESTION, sessionId="none")),
        "ValidationException",
        status=400,
    )


@check_bedrock
def bedrock_guards_what_it_generates():
    text = "Is there dynamite in the lighthouse?"
    whole = knowledge.retrieve_and_generate(**retrieval(text, guarded=True))
    assert whole["guardrailAction"] == "INTERVENED", whole
    events = list(knowledge.retrieve_and_generate_stream(**retrieval(text, guarded=True))["stream"])
    assert events[-1] == {"guardrail": {"action": "INTERVENED"}}, events
    said = "".join(event["output"]["text"] for event in events if "output" in event)
    assert said == whole["output"]["text"], said
    passed = knowledge.retrieve_and_generate(**retrieval(QUESTION, guarded=True))
    assert passed["guardrailAction"] == "NONE", passed


@check_bedrock
def bedrock_applies_a_guardrail():
    def apply(text, **more):
        named = {"guardrailIdentifier": GUARDRAIL, "guardrailVersion": "1", **more}
        return runtime.apply_guardrail(source="INPUT", content=[{"text": {"text": text}}], **named)

    assert apply("harmless")["action"] == "NONE"
    answer = apply("Some DYNAMITE.")
    assert answer["action"] == "GUARDRAIL_INTERVENED"
    assert len(answer["outputs"]) == 1
    [assessment] = answer["assessments"]
    [word] = assessment["wordPolicy"]["customWords"]
    assert (word["match"], word["action"]) == ("dynamite", "BLOCKED"), word
    assert answer["usage"]["wordPolicyUnits"] == 1
    refused(lambda: apply("x", guardrailVersion="9"), "ResourceNotFoundException", status=404)


@check_bedrock
def bedrock_converses():
    whole = runtime.converse(**conversation(QUESTION))
    assert whole["stopReason"] == "end_turn", whole
    [block] = whole["output"]["message"]["content"]
    assert "1862" in block["text"] and "[1]" in block["text"], block
    usage = whole["usage"]
    assert usage["inputTokens"] + usage["outputTokens"] == usage["totalTokens"] > 0, usage
    events = list(runtime.converse_stream(**conversation(QUESTION))["stream"])
    kinds = [kind for event in events for kind in event]
    assert (kinds[0], kinds[-2:]) == ("messageStart", ["messageStop", "metadata"]), kinds
    deltas = [event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event]
    assert "".join(deltas) == block["text"] and len(deltas) > 1, deltas
    assert events[-1]["metadata"]["usage"] == usage, events[-1]


@check_bedrock
def bedrock_guards_conversations():
    asked = conversation("Is there dynamite in the lighthouse?", guarded=True)
    whole = runtime.converse(**asked)
    assert whole["stopReason"] == "guardrail_intervened", whole
    events = list(runtime.converse_stream(**asked)["stream"])
    [stop] = [event["messageStop"] for event in events if "messageStop" in event]
    assert stop["stopReason"] == "guardrail_intervened", events


@check_bedrock
def bedrock_streams_break_off():
    def stream(model):
        seen = []
        try:
            for event in runtime.converse_stream(**{**conversation(QUESTION), "modelId": model})["stream"]:
                seen.append(event)
        except Exception as error:  # what a cut connection ends in is urllib3's affair
            return len(seen), error
        raise AssertionError(f"{model} came to its end: {seen}")

    count, error = stream("example.throttled-v1:0")
    assert count == 2 and isinstance(error, EventStreamError), (count, error)
    assert error.response["Error"] == {"Code": "throttlingException", "Message": "Slow down."}, error.response
    count, error = stream("example.cut-v1:0")
    assert count == 2 and not isinstance(error, EventStreamError), (count, error)


@check_bedrock
def bedrock_other_operations_are_named():
    refused(lambda: runtime.invoke_model(modelId=MODEL, body=b"{}"), "NotImplemented", "NotImplementedException", status=501)


@check_bedrock
def bedrock_has_one_configuration_of_model_invocation_logging():
    assert "loggingConfig" not in bedrock.get_model_invocation_logging_configuration()
    wanted = {"s3Config": {"bucketName": "audit", "keyPrefix": "models"}, "textDataDeliveryEnabled": True}
    bedrock.put_model_invocation_logging_configuration(loggingConfig=wanted)
    assert bedrock.get_model_invocation_logging_configuration()["loggingConfig"] == wanted
    role = {"cloudWatchConfig": {"logGroupName": "logs", "roleArn": "arn:aws:iam::123456789012:user/ada"}}
    refused(lambda: bedrock.put_model_invocation_logging_configuration(loggingConfig=role), "ValidationException")
    for _ in range(2):
        bedrock.delete_model_invocation_logging_configuration()
    assert "loggingConfig" not in bedrock.get_model_invocation_logging_configuration()


@check
def ssm_parameters_are_kept():
    name = f"/{RUN}parameter"
    refused(lambda: ssm.get_parameter(Name=name), "ParameterNotFound")
    assert ssm.put_parameter(Name=name, Value="one", Type="String")["Version"] == 1
    refused(lambda: ssm.put_parameter(Name=name, Value="two", Type="String"), "ParameterAlreadyExists")
    assert ssm.put_parameter(Name=name, Value="two", Overwrite=True)["Version"] == 2
    parameter = ssm.get_parameter(Name=name)["Parameter"]
    assert (parameter["Value"], parameter["Type"]) == ("two", "String"), parameter
    refused(lambda: ssm.put_parameter(Name=name, Value="x" * 4097, Overwrite=True), "ValidationException")
    ssm.delete_parameter(Name=name)
    refused(lambda: ssm.delete_parameter(Name=name), "ParameterNotFound")


@check
def ssm_other_operations_are_named():
    refused(lambda: ssm.describe_parameters(), "NotImplemented", status=501)


def main():
    failed = 0
    for function in checks:
        try:
            function()
            print(f"ok    {function.__name__}")
        except Exception as error:  # a check may fail in any way; the others still run
            failed += 1
            print(f"FAIL  {function.__name__}: {type(error).__name__}: {error}")
    print(f"{len(checks) - failed} of {len(checks)} checks passed with boto3 {boto3.__version__}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
