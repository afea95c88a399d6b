// Package config owns the controller's options: what can be set, where a value comes from
// (command line, environment, file, in this order of precedence), which rules the values
// must satisfy, and the text of --help. The packages that use the options decide what they
// mean for the fleet.
package config
