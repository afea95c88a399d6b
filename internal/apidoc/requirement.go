package apidoc

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// requirementOf returns what a caller of the method must have, such as "operator"; empty for
// the methods of agents.
func requirementOf(m protoreflect.MethodDescriptor) string {
	// The options of the compiler have extensions of its own type.
	var options descriptorpb.MethodOptions
	data, err := proto.Marshal(m.Options())
	if err == nil {
		err = proto.Unmarshal(data, &options)
	}
	if err != nil {
		panic("apidoc: the options of " + string(m.FullName()) + ": " + err.Error())
	}
	need, ok := proto.GetExtension(&options, migcontrollerv1.E_Requires).(*migcontrollerv1.Requirement)
	if !ok || need == nil {
		return ""
	}
	role := strings.ToLower(strings.TrimPrefix(need.GetRole().String(), "ROLE_"))
	if need.GetAllPools() {
		return role + ", all pools"
	}
	return role
}

// requirementText returns what a caller of the method must have, as a sentence.
func requirementText(m protoreflect.MethodDescriptor) string {
	role, allPools := strings.CutSuffix(requirementOf(m), ", all pools")
	switch {
	case role == "":
		return ""
	case allPools:
		return "It requires the role " + role + " for all pools."
	default:
		return "It requires the role " + role + "."
	}
}

// isForOperators reports whether the methods of a service are for operators.
func isForOperators(s protoreflect.ServiceDescriptor) bool {
	return requirementOf(s.Methods().Get(0)) != ""
}
