// What a cluster is configured with: ceph.conf, and a keyring for each daemon
// and user.

package lab

import (
	"bytes"
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"
)

//go:embed ceph.conf.tmpl
var cephConfText string

var cephConf = template.Must(template.New("ceph.conf").Parse(cephConfText))

// pools are those of OpenStack, in the names of the project's design.
var pools = []string{"images", "volumes", "backups", "vms"}

// entity is a cephx user or daemon, and what it may do.
type entity struct {
	name string
	caps [][2]string
	// path is its keyring file, below the cluster's folder. The monitor makes
	// its own.
	path string
}

// entities returns everyone who may speak to the cluster. The users and their
// caps are those of Glance, Cinder and cinder-backup; a bare cluster has none.
func entities(osds int, bare bool) []entity {
	all := [][2]string{{"mon", "allow *"}, {"mgr", "allow *"}, {"osd", "allow *"}, {"mds", "allow *"}}
	user := func(name, osd string) entity {
		return entity{"client." + name, [][2]string{{"mon", "profile rbd"}, {"osd", osd}}, "ceph.client." + name + ".keyring"}
	}
	es := []entity{
		{"mon.", all[:1], ""},
		{"client.admin", all, "ceph.client.admin.keyring"},
		{"mgr.a", [][2]string{{"mon", "allow profile mgr"}, {"osd", "allow *"}, {"mds", "allow *"}}, "mgr.a/keyring"},
	}
	if !bare {
		es = append(es,
			user("glance", "profile rbd pool=images"),
			user("cinder", "profile rbd pool=volumes, profile rbd pool=vms, profile rbd pool=images"),
			user("cinder-backup", "profile rbd pool=backups"))
	}
	for i := range osds {
		es = append(es, entity{fmt.Sprintf("osd.%d", i),
			[][2]string{{"mon", "allow profile osd"}, {"mgr", "allow profile osd"}, {"osd", "allow *"}},
			fmt.Sprintf("osd.%d/keyring", i)})
	}
	return es
}

// writeCephConf writes ceph.conf and the folders that it names.
func (l *Lab) writeCephConf() error {
	dirs := []string{"log", "run", "crash", "guests", "log-guests", "mon.a", "mgr.a"}
	for i := range l.state.OSDs {
		dirs = append(dirs, fmt.Sprintf("osd.%d", i))
	}
	for _, d := range dirs {
		if err := os.MkdirAll(l.ceph(d), 0o755); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	var b bytes.Buffer
	err := cephConf.Execute(&b, map[string]any{
		"FSID":    l.FSID,
		"Dir":     l.ceph(""),
		"MonHost": l.monAddr(),
		"Store":   l.state.Store,
		"Bare":    l.state.Bare,
		"PortMin": l.state.BasePort + portCeph,
		"PortMax": l.state.BasePort + portsBlock - 1,
	})
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return os.WriteFile(l.Conf, b.Bytes(), 0o644)
}

// writeKeyrings makes a key for each entity, in a file of its own, and returns
// all of them as one keyring with caps for the monitor's first start.
func (l *Lab) writeKeyrings() (string, error) {
	var all strings.Builder
	for _, e := range entities(l.state.OSDs, l.state.Bare) {
		section := fmt.Sprintf("[%s]\n\tkey = %s\n", e.name, newKey())
		if e.path != "" {
			if err := os.WriteFile(l.ceph(e.path), []byte(section), 0o600); err != nil {
				return "", err
			}
		}
		all.WriteString(section)
		for _, c := range e.caps {
			fmt.Fprintf(&all, "\tcaps %s = \"%s\"\n", c[0], c[1])
		}
	}
	path := l.ceph("initial.keyring")
	return path, os.WriteFile(path, []byte(all.String()), 0o600)
}

// newKey returns a cephx secret: type AES, time of creation, length, 16 random
// bytes; little-endian, in base64. Similar to: ceph-authtool --gen-print-key.
func newKey() string {
	now := time.Now()
	b := binary.LittleEndian.AppendUint16(nil, 1)
	b = binary.LittleEndian.AppendUint32(b, uint32(now.Unix()))
	b = binary.LittleEndian.AppendUint32(b, uint32(now.Nanosecond()))
	b = binary.LittleEndian.AppendUint16(b, 16)
	secret := make([]byte, 16)
	rand.Read(secret)
	return base64.StdEncoding.EncodeToString(append(b, secret...))
}

// newUUID returns a random UUID, version 4.
func newUUID() string {
	b := make([]byte, 16)
	rand.Read(b)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// monAddr is the monitor's address in both protocols.
func (l *Lab) monAddr() string {
	base := l.state.BasePort
	return fmt.Sprintf("[v2:127.0.0.1:%d,v1:127.0.0.1:%d]", base+portMonV2, base+portMonV1)
}

// ceph returns a path in the cluster's folder.
func (l *Lab) ceph(name string) string { return filepath.Join(l.Dir, "ceph", name) }
