"""Uploads a file through the gateway and resumes by upload_id and token. Usage: upload.py FILE [HOST:PORT]"""

import base64
import hashlib
import os
import sys
import time

import grpc

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../proto"))
messages, services = grpc.protos_and_services("uploadgateway/v1/upload.proto")


def requests(target, path, offset):
    yield messages.UploadRequest(open=target)
    with open(path, "rb") as file:
        file.seek(offset)
        while data := file.read(256 * 1024):
            yield messages.UploadRequest(chunk=messages.Chunk(offset=offset, data=data))
            offset += len(data)
    yield messages.UploadRequest(finish=messages.Finish())


def upload(stub, path, tries=60):
    with open(path, "rb") as file:
        md5 = base64.b64encode(hashlib.file_digest(file, "md5").digest()).decode()
    # With size and MD5 the same create finds the same open upload again, should this program end before its time.
    metadata = {"file_name": os.path.basename(path), "file_size": os.path.getsize(path), "file_id": md5}
    target, committed = messages.Open(file=metadata), 0
    while True:
        try:
            for progress in stub.UploadWithProgress(requests(target, path, committed)):
                # The newest token brings the upload back should the gateway's state store lose it.
                token = progress.resume_token or target.resume_token
                target, committed = messages.Open(upload_id=progress.upload_id, resume_token=token), progress.committed_size
                print(f"{committed} bytes committed", file=sys.stderr)
            return progress.upload
        except grpc.RpcError as error:
            tries -= 1
            if error.code() != grpc.StatusCode.UNAVAILABLE or not tries:
                raise
            print(f"{error.details()}; resume", file=sys.stderr)
            time.sleep(1)


address = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:50051"
with grpc.insecure_channel(address) as channel:
    print(upload(services.UploadServiceStub(channel), sys.argv[1]).object)
