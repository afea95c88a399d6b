package heartbeat

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

var errMalformed = errors.New("malformed")

// decoder decodes texts of field 8, and figures, and records its arguments.
func decoder(given *[]string) func([]byte) (fleet.Heartbeat, error) {
	return func(wire []byte) (h fleet.Heartbeat, err error) {
		*given = append(*given, string(wire))
		for len(wire) > 0 {
			number, form, n := protowire.ConsumeField(wire)
			switch {
			case n < 0 || form != protowire.BytesType:
				return fleet.Heartbeat{}, errMalformed
			case number == healthField:
				h.Health = new(fleet.Health)
			case number == 8:
				content, _ := protowire.ConsumeBytes(wire[1:])
				h.Status = string(content)
			}
			wire = wire[n:]
		}
		h.SentAt = time.Unix(int64(len(*given)), 0)
		return h, nil
	}
}

func text(number protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), s)
}

// Only the figures are decoded of a heartbeat that repeats the last one.
func TestReaderDecodesFigures(t *testing.T) {
	t.Parallel()
	var given []string
	r := NewReader(decoder(&given))
	read := func(repeats bool, fields ...[]byte) fleet.Heartbeat {
		t.Helper()
		h, repeated, err := r.Read(bytes.Join(fields, nil))
		require.NoError(t, err)
		require.Equal(t, repeats, repeated)
		return h
	}
	idle, busy, health := text(8, "idle"), text(8, "busy"), text(healthField, "")
	require.Equal(t, "idle", read(false, idle, health).Status)
	again := read(true, health, idle)
	require.Equal(t, "idle", again.Status)
	require.NotNil(t, again.Health)
	require.Equal(t, time.Unix(2, 0), again.SentAt)
	require.Equal(t, string(health), given[1])
	require.Nil(t, read(true, idle).Health, "what is left out is not remembered")

	require.Equal(t, "busy", read(false, busy).Status)
	require.Equal(t, string(busy), given[3])
	require.Empty(t, read(false).Status)
	require.Empty(t, read(true, health).Status)
}

// A heartbeat that cannot be decoded is an error and is not remembered.
func TestReaderOfMalformed(t *testing.T) {
	t.Parallel()
	var given []string
	r := NewReader(decoder(&given))
	idle := text(8, "idle")
	_, _, err := r.Read(idle)
	require.NoError(t, err)
	for _, wire := range [][]byte{
		{0xff},
		append(bytes.Clone(idle), 0xff),
		protowire.AppendVarint(protowire.AppendTag(bytes.Clone(idle), healthField, protowire.VarintType), 1),
	} {
		_, _, err = r.Read(wire)
		require.ErrorIs(t, err, errMalformed)
	}
	h, _, err := r.Read(idle)
	require.NoError(t, err)
	require.Equal(t, "idle", h.Status)
	require.Empty(t, given[len(given)-1], "it is still the last one")
}

// A large heartbeat is not kept in memory.
func TestReaderForgetsLarge(t *testing.T) {
	t.Parallel()
	var given []string
	r := NewReader(decoder(&given))
	large := text(8, string(bytes.Repeat([]byte("x"), maxRemembered)))
	for range 2 {
		h, _, err := r.Read(large)
		require.NoError(t, err)
		require.Len(t, h.Status, maxRemembered)
		require.Equal(t, string(large), given[len(given)-1])
		require.Empty(t, r.same)
	}
	h, _, err := r.Read(nil)
	require.NoError(t, err)
	require.Empty(t, h.Status)
}
