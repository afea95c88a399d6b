package audit

import (
	"encoding/json"
	"time"

	"github.com/mig-controller/mig-controller/internal/auth"
)

// document is the JSON of an Event.
type document struct {
	At        time.Time   `json:"at"`
	Name      string      `json:"name,omitempty"`
	Method    auth.Method `json:"method,omitempty"`
	Role      auth.Role   `json:"role,omitempty"`
	AllPools  bool        `json:"all_pools,omitempty"`
	Pools     []string    `json:"pools,omitempty"`
	TokenID   string      `json:"token_id,omitempty"`
	ExpiresAt time.Time   `json:"expires_at,omitzero"`
	Address   string      `json:"address,omitempty"`
	Action    string      `json:"action"`
	VM        string      `json:"vm,omitempty"`
	Command   string      `json:"command,omitempty"`
	Detail    string      `json:"detail,omitempty"`
	Outcome   string      `json:"outcome"`
	Error     string      `json:"error,omitempty"`
	Reason    string      `json:"reason,omitempty"`
	RequestID string      `json:"request_id,omitempty"`
	Count     int64       `json:"count"`
}

// MarshalJSON returns the form in which events are stored: all but Seq, and of the principal
// all but what its credentials are while it is connected.
func (e Event) MarshalJSON() ([]byte, error) {
	return json.Marshal(document{
		At: e.At, Name: e.By.Name, Method: e.By.Method, Role: e.By.Role, AllPools: e.By.Scope.All(), Pools: e.By.Scope.Pools(),
		TokenID: e.By.TokenID, ExpiresAt: e.By.ExpiresAt, Address: e.Address, Action: e.Action, VM: e.VM, Command: e.Command,
		Detail: e.Detail, Outcome: e.Outcome, Error: e.Error, Reason: e.Reason, RequestID: e.RequestID, Count: e.Count,
	})
}

// UnmarshalJSON reads what MarshalJSON has written.
func (e *Event) UnmarshalJSON(text []byte) error {
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		return err
	}
	scope := auth.OnlyPools(d.Pools...)
	if d.AllPools {
		scope = auth.AllPools()
	}
	*e = Event{
		At:      d.At,
		By:      auth.Principal{Name: d.Name, Method: d.Method, Role: d.Role, Scope: scope, TokenID: d.TokenID, ExpiresAt: d.ExpiresAt},
		Address: d.Address, Action: d.Action, VM: d.VM, Command: d.Command, Detail: d.Detail,
		Outcome: d.Outcome, Error: d.Error, Reason: d.Reason, RequestID: d.RequestID, Count: d.Count,
	}
	return nil
}
