// What a host is configured with: libvirtd.conf, qemu.conf, virtlogd.conf and
// /etc/hosts.

package lab

import (
	"fmt"
	"path/filepath"
	"strings"
)

// virtlogdConf lets a console grow so far that nothing is lost in a test.
const virtlogdConf = "max_size = 67108864\nmax_backups = 3\nmax_clients = 1024\n"

// hostsFile gives each host's name the address that it listens on.
func (l *Lab) hostsFile() string {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n")
	for _, h := range l.Hosts {
		fmt.Fprintf(&b, "%s %s\n", h.Addr, h.Name)
	}
	return b.String()
}

// libvirtdConf has libvirtd listen without authentication: on a loopback
// address only, on a throw-away host. Over TLS it takes the lab's certificates
// and no others.
func (h *Host) libvirtdConf() string {
	return fmt.Sprintf(`listen_tcp = 1
listen_tls = 1
tcp_port = "%d"
tls_port = "%d"
listen_addr = "%s"
auth_tcp = "none"
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_group = "root"
host_uuid = "%s"
ca_file = "%[5]s/cacert.pem"
cert_file = "%[5]s/servercert.pem"
key_file = "%[5]s/serverkey.pem"
max_clients = 1000
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
`, h.port, h.tlsPort, h.Addr, newUUID(), filepath.Join(h.Dir, "pki"))
}

// qemuConf runs QEMU as root, with nothing between it and the machine: no
// security driver, no cgroups, no namespaces of libvirt's own.
func (h *Host) qemuConf() string {
	base := h.lab.state.BasePort
	migration := base + portMigration + h.index*portsMigration
	display := base + portDisplay + h.index*portsDisplay
	return fmt.Sprintf(`security_driver = "none"
user = "root"
group = "root"
remember_owner = 0
cgroup_controllers = []
namespaces = []
max_core = 0
dump_guest_core = 0
migration_address = "%s"
migration_host = "%s"
migrate_tls_x509_cert_dir = "%s"
migrate_tls_x509_verify = 1
migration_port_min = %d
migration_port_max = %d
vnc_listen = "127.0.0.1"
remote_display_port_min = %d
remote_display_port_max = %d
`, h.Addr, h.Name, filepath.Join(h.Dir, "pki"), migration, migration+portsMigration-1, display, display+portsDisplay-1)
}
