// Package monitoring owns the tests of what operators load into Prometheus and Grafana: the
// rules in deploy/prometheus, the dashboard in deploy/grafana, and the runbook of the alerts.
// It contains only tests. Scenarios of package faults run the rules and the queries in
// Prometheus, against a controller.
package monitoring
