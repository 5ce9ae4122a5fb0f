package disk

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What librbd would read wrong, or not at all, is refused, in a file and on a server,
// and what it reads is not.
func TestOpenOriginJudges(t *testing.T) {
	raw := rawFixture(t, 8<<20)
	server := httptest.NewServer(http.FileServer(http.Dir("/")))
	t.Cleanup(server.Close)
	snapshots, zeros, cut := qcow2Fixture(t, raw), qcow2Fixture(t, raw), qcow2Fixture(t, raw)
	command(t, "qemu-img", "snapshot", "-c", "one", snapshots)
	command(t, "qemu-io", "-c", "write -z 1048576 131072", zeros)
	fi, err := os.Stat(cut)
	check(t, err)
	check(t, os.Truncate(cut, fi.Size()-1))
	backed := filepath.Join(t.TempDir(), "backed.qcow2")
	command(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", raw, "-F", "raw", backed)
	for _, c := range []struct{ name, path, want string }{
		{"raw", raw, ""},
		{"qcow2", qcow2Fixture(t, raw), ""},
		{"qcow2 of version 2", qcow2Fixture(t, raw, "-o", "compat=0.10,cluster_size=2M"), ""},
		{"small clusters", qcow2Fixture(t, raw, "-o", "cluster_size=512"), ""},
		{"compressed", qcow2Fixture(t, raw, "-c"), "compressed"},
		{"zstd", qcow2Fixture(t, raw, "-c", "-o", "compression_type=zstd"), "compressed"},
		{"extended L2", qcow2Fixture(t, raw, "-o", "extended_l2=on,cluster_size=128k"), "extended L2"},
		{"internal snapshots", snapshots, "1 internal snapshots"},
		{"allocated zeros", zeros, "zeros that are allocated"},
		{"cut short", cut, "end"},
		{"backing file", backed, "backing file"},
	} {
		for _, where := range []string{c.path, server.URL + c.path} {
			o, err := OpenOrigin(t.Context(), where, SourceOptions{})
			switch {
			case c.want == "" && err != nil:
				t.Errorf("%s: %v", c.name, err)
			case c.want == "" && (o.Size != 8<<20 || o.Where != where || o.Stamp == ""):
				t.Errorf("%s: %+v", c.name, o)
			case c.want != "" && (!errors.Is(err, ErrBadSource) || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%s: %v, want %q", c.name, err, c.want)
			}
		}
	}
}

// A server that librbd could not read from is refused, and it is said why.
func TestOpenOriginServers(t *testing.T) {
	content := strings.Repeat("x", 1024)
	give := func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
	}
	answers := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	for _, c := range []struct {
		name   string
		server http.HandlerFunc
		want   error
		says   string
	}{
		{"well", give, nil, ""},
		{"no ranges", func(w http.ResponseWriter, r *http.Request) { r.Header.Del("Range"); give(w, r) }, ErrBadSource, "range"},
		{"redirects", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/there", http.StatusFound) }, ErrBadSource, "redirects to: /there"},
		{"not found", answers(http.StatusNotFound), ErrNotFound, "404"},
		{"forbidden", answers(http.StatusForbidden), ErrPermission, "403"},
		{"broken", answers(http.StatusBadGateway), ErrOriginAway, "502"},
		{"no HEAD", answers(http.StatusMethodNotAllowed), ErrBadSource, "HEAD"},
		{"no size", func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() }, ErrBadSource, "how large"},
		{"empty", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "0") }, ErrBadSource, "empty"},
		{"ends early", func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				panic(http.ErrAbortHandler)
			}
			give(w, r)
		}, ErrOriginAway, "EOF"},
	} {
		server := httptest.NewServer(c.server)
		_, err := OpenOrigin(t.Context(), server.URL+"/disk", SourceOptions{})
		server.Close()
		if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %v with %q", c.name, err, c.want, c.says)
		}
	}
	tls := httptest.NewUnstartedServer(http.HandlerFunc(give))
	tls.Config.ErrorLog = log.New(io.Discard, "", 0)
	tls.StartTLS()
	defer tls.Close()
	for where, says := range map[string]string{
		tls.URL + "/disk":       "certificate",
		"http://a:b@host/disk":  "user and password",
		"http://[::1]/disk":     "http://HOST",
		"ftp://host/disk":       "http://",
		"http://host/disk#part": "http://HOST",
		"http://ho st/disk":     "http://",
	} {
		if _, err := OpenOrigin(t.Context(), where, SourceOptions{}); !errors.Is(err, ErrBadSource) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", where, err, says)
		}
	}
}

// What is told of a migration is read as librbd wrote it, or not at all.
func TestParseMigration(t *testing.T) {
	c := open(t)
	o, err := OpenOrigin(t.Context(), rawFixture(t, 1<<20), SourceOptions{})
	check(t, err)
	n := Name{Pool: VMPool, Image: "parse-migration"}
	check(t, c.FillFrom(t.Context(), o, n))
	t.Cleanup(func() { check(t, c.RemoveDisk(context.WithoutCancel(t.Context()), n)) })
	f, err := c.Filling(t.Context(), n)
	if err != nil || f.Origin != o || f.Percent != 0 || f.Whole {
		t.Errorf("%+v, %v; want %+v", f, err, o)
	}
	if err := c.FillFrom(t.Context(), o, n); !errors.Is(err, ErrExists) {
		t.Errorf("made again: %v", err)
	}
	for _, b := range [][]byte{nil, make([]byte, 14), make([]byte, 40), []byte(strings.Repeat("\xff", 100))} {
		if m, err := parseMigration(b); err == nil && m.origin.Where != "" {
			t.Errorf("%x is %+v", b, m)
		}
	}
}
