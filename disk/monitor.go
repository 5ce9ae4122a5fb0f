// Asking the monitors.

package disk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// Ask sends a command to the monitors and returns their answer, in JSON where the
// command has that. A command that the user may not run is [ErrPermission] and says
// which cap it takes.
//
// Similar to: ceph PREFIX … --format json.
func (c *Cluster) Ask(ctx context.Context, command map[string]any) ([]byte, error) {
	prefix := fmt.Sprint(command["prefix"])
	if err := ctx.Err(); err != nil {
		return nil, wrap("ask for", prefix, err)
	}
	command["format"] = "json"
	text, err := json.Marshal(command)
	if err != nil {
		return nil, err
	}
	out, said, err := c.conn.MonCommand(text)
	if err == nil {
		return out, nil
	}
	e := translate("run", "ceph "+prefix, err)
	switch {
	case is(e, ErrPermission):
		e.Reason = "permission denied: client." + c.user + " lacks the mon cap for it; client.admin has it"
	case said != "":
		e.Reason = said
	}
	return nil, e
}

// AskJSON is [Cluster.Ask] with the answer decoded.
func (c *Cluster) AskJSON(ctx context.Context, command map[string]any, answer any) error {
	out, err := c.Ask(ctx, command)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, answer); err != nil {
		// The answer may have a key in it and is not quoted.
		return &Error{Op: "read the answer to", Object: fmt.Sprint("ceph ", command["prefix"]), Err: errors.New("it is not the JSON that was expected")}
	}
	return nil
}
