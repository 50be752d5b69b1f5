// The Sensor and the EventSource of Argo Events, for `make bench-peers`. Each subcommand does what
// the one of the same name of the module's own program does (pkg/sensors/cmd, pkg/eventsources/cmd),
// with two values that are constants there as flags: the port of the metrics, since both run on one
// host here, and the limits of the Kubernetes client.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"os"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/manager/signals"

	"github.com/argoproj/argo-events/pkg/apis/events/v1alpha1"
	"github.com/argoproj/argo-events/pkg/eventsources"
	"github.com/argoproj/argo-events/pkg/metrics"
	"github.com/argoproj/argo-events/pkg/sensors"
	"github.com/argoproj/argo-events/pkg/shared/logging"
	sharedutil "github.com/argoproj/argo-events/pkg/shared/util"
)

func main() {
	if len(os.Args) < 2 {
		fail("usage: argo-events sensor|eventsource [FLAGS]", nil)
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	port := flags.Int("metrics-port", v1alpha1.SensorMetricsPort, "port of the metrics")
	qps := flags.Float64("kube-api-qps", 0, "requests per second to the API server (0: client-go's default, 5)")
	burst := flags.Int("kube-api-burst", 0, "burst of these requests (0: client-go's default, 10)")
	_ = flags.Parse(os.Args[2:])

	var err error
	switch os.Args[1] {
	case "sensor":
		err = sensor(*port, float32(*qps), *burst)
	case "eventsource":
		err = eventSource(*port)
	default:
		err = fmt.Errorf("unknown subcommand (allowed: sensor, eventsource)")
	}
	fail(os.Args[1], err)
}

func sensor(port int, qps float32, burst int) error {
	object := &v1alpha1.Sensor{}
	bus, subject, host, err := environment(v1alpha1.EnvVarSensorObject, object)
	if err != nil {
		return err
	}
	config, err := sharedutil.GetClientConfig(os.Getenv(v1alpha1.EnvVarKubeConfig))
	if err != nil {
		return err
	}
	config.QPS, config.Burst = qps, burst
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	dynamicClient, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, m := start("sensor", object.Namespace, port)
	return sensors.NewSensorContext(client, dynamicClient, object, bus, subject, host, m).Start(ctx)
}

func eventSource(port int) error {
	object := &v1alpha1.EventSource{}
	bus, subject, host, err := environment(v1alpha1.EnvVarEventSourceObject, object)
	if err != nil {
		return err
	}
	ctx, m := start("eventsource", object.Namespace, port)
	return eventsources.NewEventSourceAdaptor(object, bus, subject, host, m).Start(ctx)
}

// environment reads what the controller of Argo Events sets on the pods that it creates.
func environment(name string, object any) (*v1alpha1.BusConfig, string, string, error) {
	bus := &v1alpha1.BusConfig{}
	if err := decode(name, object); err != nil {
		return nil, "", "", err
	}
	if err := decode(v1alpha1.EnvVarEventBusConfig, bus); err != nil {
		return nil, "", "", err
	}
	return bus, os.Getenv(v1alpha1.EnvVarEventBusSubject), os.Getenv(v1alpha1.EnvVarPodName), nil
}

func decode(name string, object any) error {
	text, err := base64.StdEncoding.DecodeString(os.Getenv(name))
	if err == nil {
		err = json.Unmarshal(text, object)
	}
	if err != nil {
		return fmt.Errorf("environment variable %s: %w", name, err)
	}
	return nil
}

func start(name, namespace string, port int) (context.Context, *metrics.Metrics) {
	logger := logging.NewArgoEventsLogger().Named(name)
	ctx := logging.WithLogger(signals.SetupSignalHandler(), logger)
	m := metrics.NewMetrics(namespace)
	go m.Run(ctx, fmt.Sprintf("127.0.0.1:%d", port))
	return ctx, m
}

func fail(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "argo-events: %s: %v\n", what, err)
	} else {
		fmt.Fprintf(os.Stderr, "argo-events: %s\n", what)
	}
	os.Exit(1)
}
