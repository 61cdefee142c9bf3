"""Signs what it reads as JSON with AWS's and Microsoft's own libraries, and prints the URLs or queries as JSON."""

import datetime
import json
import sys

import botocore.auth
import botocore.session
from azure.storage.blob import UserDelegationKey
from azure.storage.blob._shared_access_signature import BlobSharedAccessSignature
from botocore.config import Config


def s3(case):
    now = datetime.datetime.fromtimestamp(case["now"], datetime.timezone.utc)
    botocore.auth.get_current_datetime = lambda *_, **__: now
    client = botocore.session.get_session().create_client(
        "s3",
        region_name=case["region"],
        endpoint_url=case["endpoint"],
        aws_access_key_id=case["access_key_id"],
        aws_secret_access_key=case["secret_access_key"],
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": case["addressing_style"]},
            request_checksum_calculation="when_required",
        ),
    )

    def set_headers(request, **_):
        for name, value in case["headers"].items():
            del request.headers[name]
            request.headers[name] = value

    client.meta.events.register("before-sign.s3", set_headers)
    return client.generate_presigned_url(
        case["operation"], Params=case["parameters"], ExpiresIn=case["expires"]
    )


def azure(case):
    key = None
    if "delegation_key" in case:
        key = UserDelegationKey()
        for name, value in case["delegation_key"].items():
            setattr(key, name, value)
    signature = BlobSharedAccessSignature(
        case["account"], case.get("account_key"), user_delegation_key=key
    )
    signature.x_ms_version = case["version"]
    time = lambda name: datetime.datetime.fromtimestamp(case[name], datetime.timezone.utc)
    return signature.generate_blob(
        case["container"],
        case["blob"],
        permission=case["permission"],
        start=time("start"),
        expiry=time("expiry"),
        protocol=case["protocol"],
        content_disposition=case.get("content_disposition"),
        content_type=case.get("content_type"),
        encryption_scope=case.get("encryption_scope"),
        request_headers=case.get("request_headers"),
        request_query_params=case.get("request_query"),
    )


kinds = {"s3": s3, "azure": azure}
json.dump([kinds[case["kind"]](case) for case in json.load(sys.stdin)], sys.stdout)
