package apidoc

import (
	"fmt"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/mig-controller/mig-controller/internal/control"
	"github.com/mig-controller/mig-controller/internal/fleet"
)

// idPattern is what fleet.CheckID accepts.
var idPattern = fmt.Sprintf("[A-Za-z0-9][A-Za-z0-9._-]{0,%d}", fleet.MaxIDLength-1)

// rules are the constraints on the fields of request messages in addition to the type. Those
// of nested messages apply to responses too.
var rules = map[protoreflect.FullName]struct {
	required []string
	// ids are required fields that are ids; filters are ids that may be empty.
	ids, filters []string
	// most is the maximum of a number; the minimum is 0.
	most map[string]int
}{
	"miglet.commands.Command":                 {required: []string{"type"}, filters: []string{"id"}},
	"migcontroller.v1.SendCommandRequest":     {required: []string{"vmId", "command"}, ids: []string{"vmId"}, most: map[string]int{"maxDeliveries": fleet.MaxDeliveriesLimit}},
	"migcontroller.v1.GetCommandRequest":      {required: []string{"commandId"}, ids: []string{"commandId"}},
	"migcontroller.v1.ListCommandsRequest":    {filters: []string{"vmId"}, most: pages},
	"migcontroller.v1.CancelCommandRequest":   {required: []string{"commandId"}, ids: []string{"commandId"}},
	"migcontroller.v1.GetVMRequest":           {required: []string{"vmId"}, ids: []string{"vmId"}},
	"migcontroller.v1.ListVMsRequest":         {most: pages},
	"migcontroller.v1.ListEventsRequest":      {filters: []string{"vmId"}, most: pages},
	"migcontroller.v1.ListHeartbeatsRequest":  {required: []string{"vmId"}, ids: []string{"vmId"}, most: pages},
	"migcontroller.v1.WatchFleetRequest":      {filters: []string{"vmId"}},
	"migcontroller.v1.SetLogLevelRequest":     {required: []string{"level"}},
	"migcontroller.v1.CreateTokenRequest":     {required: []string{"name", "role"}, ids: []string{"name"}},
	"migcontroller.v1.ListTokensRequest":      {most: pages},
	"migcontroller.v1.RevokeTokenRequest":     {required: []string{"tokenId"}},
	"migcontroller.v1.ListAuditEventsRequest": {filters: []string{"vmId", "commandId"}, most: pages},
}

var pages = map[string]int{"pageSize": control.MaxPageSize}

// constrain adds the rules of m to its schema, in Connect's JSON.
func constrain(m protoreflect.MessageDescriptor, s *jsonSchema) *jsonSchema {
	r := rules[m.FullName()]
	s.Required = append(s.Required, r.required...)
	for _, name := range r.ids {
		property(s, name).Pattern = "^" + idPattern + "$"
	}
	for _, name := range r.filters {
		property(s, name).Pattern = "^(" + idPattern + ")?$"
	}
	for name, most := range r.most {
		least := 0
		property(s, name).Minimum, property(s, name).Maximum = &least, &most
	}
	return s
}

// property returns the schema of a property. It panics if there is none.
func property(s *jsonSchema, name string) *jsonSchema {
	for _, p := range s.Properties {
		if found, ok := p.value.(*jsonSchema); ok && p.name == name {
			return found
		}
	}
	panic(fmt.Sprintf("apidoc: there is a rule for %s, which does not exist", name))
}
