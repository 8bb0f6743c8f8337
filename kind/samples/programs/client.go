// What client.py does, with Go: go run client.go URL [TIMES]
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"
)

const pause = 5 * time.Second

type told struct {
	Client string `json:"client"`
	URL    string `json:"url"`
	Status int    `json:"status,omitempty"`
	Issuer string `json:"issuer,omitempty"`
	Error  string `json:"error,omitempty"`
}

func call(client *http.Client, url string) (told, error) {
	found := told{Client: "go", URL: url}
	answer, err := client.Get(url)
	if err != nil {
		return found, err
	}
	defer answer.Body.Close()
	found.Status = answer.StatusCode
	found.Issuer = answer.TLS.PeerCertificates[0].Issuer.CommonName
	_, err = io.Copy(io.Discard, answer.Body)
	return found, err
}

func main() {
	times := 0
	if len(os.Args) > 2 {
		times, _ = strconv.Atoi(os.Args[2])
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	client := &http.Client{Timeout: 20 * time.Second, Transport: transport}
	failed := 0
	for number := 0; times == 0 || number < times; number++ {
		if number > 0 {
			time.Sleep(pause)
		}
		found, err := call(client, os.Args[1])
		if err == nil {
			err = os.WriteFile("/tmp/ok", nil, 0o644)
		}
		if err != nil {
			failed++
			found.Error = err.Error()
		}
		line, _ := json.Marshal(found)
		fmt.Println(string(line))
	}
	if failed > 0 {
		os.Exit(1)
	}
}
