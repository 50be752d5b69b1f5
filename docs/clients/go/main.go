// Requests a Job and prints its outcome. Usage: client [REQUEST]
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats.go"
)

func main() {
	log.SetFlags(0)
	request := nats.NewMsg("jobs.simple.submit")
	request.Data = []byte(`{"foo":"go"}`)
	if len(os.Args) > 1 {
		request.Data = []byte(os.Args[1])
	}
	request.Header.Set("Job-Wait", "outcome")

	client, err := nats.Connect(os.Getenv("NATS_URL"))
	if err != nil {
		log.Fatal(err)
	}
	answer, err := client.RequestMsg(request, time.Minute)
	if err != nil {
		log.Fatal(err)
	}
	if failure := answer.Header.Get("Nats-Service-Error"); failure != "" {
		log.Fatal(failure)
	}
	var event struct{ Outcome struct{ Result string } }
	if err := json.Unmarshal(answer.Data, &event); err != nil {
		log.Fatal(err)
	}
	fmt.Println(event.Outcome.Result)
}
