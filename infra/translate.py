#!/usr/bin/env python3
"""Translates a SAM template to the plain CloudFormation that a deployment would run, and the contract to JSON.

    translate.py TEMPLATE CONTRACT FOLDER

TEMPLATE has the contract in place of its include. The translator is AWS's own, the one that CloudFormation runs. Writes
FOLDER/translated.json and FOLDER/contract.json, both with long forms of intrinsic functions. Where code lies on disk, an
object that does not exist is named, as after an upload. Needs no account: managed policies are named by ARN in the
template, so none is looked up.
"""

import json
import os
import sys
from pathlib import Path

# The translator asks boto3 which partition it is in.
os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")

from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse


class NoManagedPolicies:
    """In place of a call to IAM."""

    def load(self):
        return {}


def write(path, document):
    path.write_text(json.dumps(document, indent=1) + "\n")


def main(template, contract, folder):
    folder = Path(folder)
    document = yaml_parse(Path(template).read_text())
    for name, resource in document["Resources"].items():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = f"s3://uploaded/{name}"
    write(folder / "translated.json", transform(document, {}, NoManagedPolicies()))
    write(folder / "contract.json", yaml_parse(Path(contract).read_text()))


main(*sys.argv[1:])
