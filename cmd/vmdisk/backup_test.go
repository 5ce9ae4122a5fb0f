package main

import (
	"strings"
	"testing"
)

// The backup commands, in the order in which one meets them.
func TestBackupStory(t *testing.T) {
	const volume, again = "story-backup", "story-restored"
	works(t, "volume", "create", volume, "--size", "1G")
	atEnd(t, "volume", "rm", volume)
	atEnd(t, "volume", "rm", again)
	atEnd(t, "backup", "rm", "story-2")
	atEnd(t, "backup", "rm", "story-1")
	type backup struct {
		ID, Volume, Kind, Parent, State string
		Bytes                           *int64
	}
	var b backup
	decode(t, works(t, "-o", "json", "backup", "create", volume, "--name", "story-1"), &b)
	if b.ID != "story-1" || b.Volume != volume || b.Kind != "full" || b.Parent != "" || b.Bytes == nil {
		t.Errorf("backup is %+v", b)
	}
	if out := works(t, "backup", "create", "--incremental", "--name=story-2", volume); out != "story-2\n" {
		t.Errorf("printed %q", out)
	}
	var all []backup
	decode(t, works(t, "backup", "ls", volume, "-o", "json"), &all)
	if len(all) != 2 || all[1].Kind != "incremental" || all[1].Parent != "story-1" || all[1].State != "complete" {
		t.Errorf("backups are %+v", all)
	}
	if out := works(t, "backup", "info", "story-2"); !strings.Contains(out, "volumes/volume-"+volume) {
		t.Errorf("info says %s", out)
	}
	if out := works(t, "backup", "verify", volume); strings.Count(out, "good") != 2 {
		t.Errorf("verify says %s", out)
	}
	if out := works(t, "backup", "record", "story-2"); !strings.HasPrefix(out, "eyJ") {
		t.Errorf("record is %s", out)
	}
	if out := works(t, "backup", "restore", "story-2", "--name", again); out != again+"\n" {
		t.Errorf("printed %q", out)
	}
	for _, tt := range []struct {
		args string
		code int
		says string
	}{
		{"backup create", exitBadInput, "VOLUME is missing"},
		{"backup create " + volume + " --incremental --differential", exitBadInput, "exclude"},
		{"backup create " + volume + " --keep 0", exitBadInput, "--keep"},
		{"backup create " + volume + " --name A@B", exitBadInput, "a-z"},
		{"backup create " + volume + " --name story-1", exitExists, "story-1"},
		{"backup create nosuch", exitNotFound, "volume-nosuch"},
		{"backup restore nosuch", exitNotFound, "nosuch"},
		{"backup restore story-1 --to a --name b", exitBadInput, "one of them"},
		{"backup rm", exitBadInput, "ID is missing"},
		{"backup frobnicate", exitBadInput, "no command"},
		{"backup ls --backup-id nosuch", exitBadInput, "client.nosuch"},
	} {
		_, stderr, code := vmdiskIs(t, strings.Fields(tt.args)...)
		if code != tt.code || !strings.Contains(stderr, tt.says) {
			t.Errorf("vmdisk %s: exit code %d, want %d: %s", tt.args, code, tt.code, stderr)
		}
	}
	works(t, "backup", "rm", "story-1")
	works(t, "backup", "rm", "story-2")
	if out := works(t, "backup", "ls"); strings.Contains(out, "story") {
		t.Errorf("left: %s", out)
	}
}
