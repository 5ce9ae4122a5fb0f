package main

import (
	"strings"
	"testing"
)

func TestMoveUsage(t *testing.T) {
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"move", "web1", "vda"}, 22, "POOL is missing"},
		{[]string{"move", "web1", "vda", "ssd", "extra"}, 22, "extra"},
		{[]string{"move", "web1", "vda", "ssd", "--bandwidth", "fast"}, 22, "fast"},
		{[]string{"move", "web1", "vda", "ssd", "--to-id", "other"}, 22, "--to-conf"},
		{[]string{"move", "no such machine", "vda", "vms"}, 2, "no such machine"},
	} {
		stdout, stderr, code := vmdiskIs(t, append(tt.args, "--progress", "none")...)
		if code != tt.code || stdout != "" || !strings.Contains(stderr, tt.says) {
			t.Errorf("%q: exit code %d, want %d with %q: %s%s", tt.args, code, tt.code, tt.says, stdout, stderr)
		}
	}
}
