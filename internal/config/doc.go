// Package config owns the controller's options: what can be set, where a value comes from
// (command line, environment, file, in this order of precedence), which rules the values
// must satisfy, and the text of --help. What the options mean for the fleet is decided
// where they are used.
package config
