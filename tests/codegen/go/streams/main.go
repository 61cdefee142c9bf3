// Command streams uploads files side by side over one channel, each at a constant rate, and prints as JSON how often streams
// moved and how many bytes were sent.
//
//	streams TARGET COUNT BYTES BYTES_PER_SECOND
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strconv"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver/dns"
	"google.golang.org/grpc/status"

	gateway "codegen/uploadgateway/v1"
)

const chunkSize = 128 << 10

// result is what became of the uploads.
type result struct {
	Completed int      `json:"completed"`
	Moves     int      `json:"moves"`
	Sent      int64    `json:"sent"`
	Failures  []string `json:"failures"`
}

func main() {
	count, size, rate := argument(2), int64(argument(3)), argument(4)
	// The default is 30 s, longer than the age of streams in this check.
	dns.SetMinResolutionInterval(time.Second)
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`))
	if err != nil {
		log.Fatal(err)
	}
	client := gateway.NewUploadServiceClient(connection)
	var all result
	var lock sync.Mutex
	var uploads sync.WaitGroup
	for number := range count {
		uploads.Add(1)
		go func() {
			defer uploads.Done()
			moves, sent, err := upload(client, fmt.Sprintf("go-%d.bin", number), size, rate)
			lock.Lock()
			defer lock.Unlock()
			all.Moves += moves
			all.Sent += sent
			if err != nil {
				all.Failures = append(all.Failures, err.Error())
			} else {
				all.Completed++
			}
		}()
	}
	uploads.Wait()
	json.NewEncoder(os.Stdout).Encode(all)
}

func argument(number int) int {
	value, err := strconv.Atoi(os.Args[number])
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// upload resumes after MOVE_ON. Any other error is a failure.
func upload(client gateway.UploadServiceClient, name string, size int64, rate int) (moves int, sent int64, err error) {
	file := &gateway.FileMetadata{FileName: name, FileSize: &size}
	open := &gateway.Open{Target: &gateway.Open_File{File: file}}
	var committed int64
	for {
		sentNow, err := stream(client, open, &committed, size, rate)
		sent += sentNow
		if err == nil {
			return moves, sent, nil
		}
		delay, moved := moveOn(err)
		if !moved {
			return moves, sent, err
		}
		moves++
		time.Sleep(delay)
	}
}

// stream sends the file from *committed on until the stream ends, and keeps in open and *committed how to resume it.
func stream(client gateway.UploadServiceClient, open *gateway.Open, committed *int64, size int64, rate int) (int64, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := client.UploadWithProgress(ctx)
	if err != nil {
		return 0, err
	}
	messages := &gateway.UploadRequest{Message: &gateway.UploadRequest_Open{Open: open}}
	if err := stream.Send(messages); err != nil {
		_, err = stream.Recv()
		return 0, err
	}
	begin, sent := *committed, make(chan int64, 1)
	go func() { sent <- send(ctx, stream, begin, size, rate) }()
	for {
		progress, err := stream.Recv()
		if err != nil {
			cancel()
			return <-sent, err
		}
		*committed = progress.GetCommittedSize()
		open.Target = &gateway.Open_UploadId{UploadId: progress.GetUploadId()}
		if progress.GetUpload().GetPhase() == gateway.Phase_PHASE_COMPLETE {
			return <-sent, nil
		}
	}
}

// send sends the file from offset on until its end, or that of the stream, and returns how many bytes it sent.
func send(ctx context.Context, stream gateway.UploadService_UploadWithProgressClient, offset, size int64, rate int) (sent int64) {
	defer stream.CloseSend()
	ticks := time.NewTicker(time.Second * chunkSize / time.Duration(rate))
	defer ticks.Stop()
	for offset < size {
		select {
		case <-ctx.Done():
			return sent
		case <-ticks.C:
		}
		data := make([]byte, min(chunkSize, size-offset))
		chunk := &gateway.Chunk{Offset: offset, Data: data}
		if stream.Send(&gateway.UploadRequest{Message: &gateway.UploadRequest_Chunk{Chunk: chunk}}) != nil {
			return sent
		}
		offset += int64(len(data))
		sent += int64(len(data))
	}
	stream.Send(&gateway.UploadRequest{Message: &gateway.UploadRequest_Finish{Finish: &gateway.Finish{}}})
	return sent
}

// moveOn returns when to resume, and whether err asks to resume elsewhere.
func moveOn(err error) (delay time.Duration, moved bool) {
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			moved = detail.GetReason() == "MOVE_ON"
		case *errdetails.RetryInfo:
			delay = detail.GetRetryDelay().AsDuration()
		}
	}
	return delay, moved
}
