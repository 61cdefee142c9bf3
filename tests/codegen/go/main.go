// Command codegen uploads a small file with the generated code. tests/codegen.rs compiles it.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	gateway "codegen/uploadgateway/v1"
)

func main() {
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	uploads := gateway.NewUploadServiceClient(connection)
	upload, err := send(uploads, "hello.txt", []byte("hello, world"))
	if err != nil {
		log.Fatalf("%v: %v", reason(err), err)
	}
	fmt.Println(upload.GetUploadId(), upload.GetPhase())

	signing := gateway.NewSigningServiceClient(connection)
	request := &gateway.SignDownloadRequest{UploadId: upload.GetUploadId()}
	signed, err := signing.SignDownload(context.Background(), request)
	if err != nil {
		log.Fatalf("%v: %v", reason(err), err)
	}
	fmt.Println(signed.GetSignature().GetVerb(), signed.GetSignature().GetUrl())
}

func send(client gateway.UploadServiceClient, name string, data []byte) (*gateway.Upload, error) {
	stream, err := client.Upload(context.Background())
	if err != nil {
		return nil, err
	}
	file := &gateway.FileMetadata{FileName: name}
	messages := []*gateway.UploadRequest{
		{Message: &gateway.UploadRequest_Open{Open: &gateway.Open{Target: &gateway.Open_File{File: file}}}},
		{Message: &gateway.UploadRequest_Chunk{Chunk: &gateway.Chunk{Data: data}}},
		{Message: &gateway.UploadRequest_Finish{Finish: &gateway.Finish{}}},
	}
	for _, message := range messages {
		// CloseAndRecv returns the error of the call.
		if stream.Send(message) != nil {
			break
		}
	}
	response, err := stream.CloseAndRecv()
	return response.GetUpload(), err
}

func reason(err error) gateway.ErrorReason {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return gateway.ErrorReason(gateway.ErrorReason_value["ERROR_REASON_"+info.GetReason()])
		}
	}
	return gateway.ErrorReason_ERROR_REASON_UNSPECIFIED
}
