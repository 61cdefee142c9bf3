#!/usr/bin/env python3
"""Uploads files side by side over one channel, each at a constant rate, and prints as JSON how often streams moved and how
many bytes were sent.

  streams.py TARGET COUNT BYTES BYTES_PER_SECOND
"""

import json
import os
import sys
import threading
import time

import grpc
from google.rpc import error_details_pb2, status_pb2

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../proto"))
messages, services = grpc.protos_and_services("uploadgateway/v1/upload.proto")

CHUNK_SIZE = 128 * 1024

OPTIONS = [
    ("grpc.lb_policy_name", "round_robin"),
    # The default is 30 s, longer than the age of streams in this check.
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
]


class Upload(threading.Thread):
    """Resumes after MOVE_ON. Any other error is a failure."""

    def __init__(self, stub, name, size, rate):
        super().__init__()
        self.stub, self.size, self.rate = stub, size, rate
        self.open = messages.Open(file={"file_name": name, "file_size": size})
        self.moves = self.sent = self.committed = 0
        self.failure = "it did not end"

    def run(self):
        while True:
            try:
                for progress in self.stub.UploadWithProgress(self.requests(self.committed)):
                    self.open = messages.Open(upload_id=progress.upload_id)
                    self.committed = progress.committed_size
                self.failure = None
                return
            except grpc.RpcError as error:
                reason, delay = details(error)
                if reason != "MOVE_ON":
                    self.failure = f"{error.code()}: {error.details()}"
                    return
                self.moves += 1
                time.sleep(delay)

    def requests(self, offset):
        yield messages.UploadRequest(open=self.open)
        begun, begin = time.monotonic(), offset
        while offset < self.size:
            time.sleep(max(0, begun + (offset - begin) / self.rate - time.monotonic()))
            data = bytes(min(CHUNK_SIZE, self.size - offset))
            yield messages.UploadRequest(chunk=messages.Chunk(offset=offset, data=data))
            offset += len(data)
            self.sent += len(data)
        yield messages.UploadRequest(finish=messages.Finish())


def details(error):
    """The reason of an error, and the delay in seconds after which to retry."""
    reason, delay = None, 0
    for key, value in error.trailing_metadata():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
                if detail.Unpack(info):
                    reason = info.reason
                elif detail.Unpack(retry):
                    delay = retry.retry_delay.ToTimedelta().total_seconds()
    return reason, delay


def main(target, count, size, rate):
    with grpc.insecure_channel(target, OPTIONS) as channel:
        stub = services.UploadServiceStub(channel)
        uploads = [Upload(stub, f"python-{number}.bin", int(size), int(rate)) for number in range(int(count))]
        for upload in uploads:
            upload.start()
        for upload in uploads:
            upload.join()
    print(json.dumps({
        "completed": sum(not upload.failure for upload in uploads),
        "moves": sum(upload.moves for upload in uploads),
        "sent": sum(upload.sent for upload in uploads),
        "failures": [upload.failure for upload in uploads if upload.failure],
    }))


main(*sys.argv[1:])
