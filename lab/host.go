// A host: a libvirtd with its own name, addresses, /run and configuration, in
// mount and UTS namespaces of its own.

package lab

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

//go:embed host.sh
var hostScript string

// Host is one of the lab's libvirt hosts. It is plain data: nothing to close.
type Host struct {
	// Name is its host name: compute1, compute2 and so on.
	Name string
	// Addr is the loopback address on which it is reached, from anywhere on this
	// machine: 127.0.1.1, 127.0.1.2 and so on.
	Addr string
	// URI is its libvirt connection URI.
	URI string
	// TLSURI is the same over TLS. It is good on the other hosts too, as a
	// migration's destination: each client shows a certificate of its own.
	TLSURI string
	// Dir is its folder in the lab: etc, lib, cache and log are mounted over
	// /etc/libvirt, /var/lib/libvirt and so on, and can be read and written from
	// outside, such as etc/libvirt/hooks/qemu. In pki are its certificates and keys,
	// as libvirt names them (cacert.pem, servercert.pem, clientcert.pem, serverkey.pem,
	// clientkey.pem) and, for migrations, as QEMU does (ca-cert.pem and so on).
	Dir string
	// Conf is the ceph.conf that processes on this host see at Lab.Conf. Write it
	// in place (it is a mount point) to give one host faults of its own.
	Conf string

	lab     *Lab
	index   int
	port    int
	tlsPort int
}

func newHost(l *Lab, index int) *Host {
	name := fmt.Sprintf("compute%d", index+1)
	h := &Host{
		Name:  name,
		Addr:  fmt.Sprintf("127.0.1.%d", index+1),
		Dir:   filepath.Join(l.Dir, name),
		Conf:  filepath.Join(l.Dir, name, "ceph.conf"),
		lab:   l,
		index: index,
	}
	h.place()
	return h
}

// place gives the host its ports, which are known once the lab has its own.
func (h *Host) place() {
	h.port = h.lab.state.BasePort + portLibvirt + h.index
	h.tlsPort = h.lab.state.BasePort + portTLS + h.index
	h.URI = fmt.Sprintf("qemu+tcp://%s:%d/system", h.Addr, h.port)
	h.TLSURI = fmt.Sprintf("qemu+tls://%s:%d/system?pkipath=%s", h.Addr, h.tlsPort, h.lab.pki())
}

func (h *Host) part(name string) string { return h.Name + "/" + name }

// up makes the host and returns when its libvirtd answers. Its holder inherits
// guard, if there is one.
func (h *Host) up(ctx context.Context, guard *os.File) error {
	began := time.Now()
	h.place()
	if err := h.writeFiles(); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	if err := h.lab.start(ctx, h.holder(guard)); err != nil {
		return err
	}
	if err := h.startDaemons(ctx); err != nil {
		return err
	}
	if err := h.offersOnlyQEMU(ctx); err != nil {
		return err
	}
	h.lab.report("%s: libvirt answers at %s: %.1f s", h.Name, h.URI, time.Since(began).Seconds())
	return nil
}

// startDaemons starts what runs in the host's namespaces, once they are there.
func (h *Host) startDaemons(ctx context.Context) error {
	for _, d := range []daemon{h.virtlogd(), h.libvirtd()} {
		if err := h.lab.start(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// writeFiles makes what is mounted over the machine's own folders.
func (h *Host) writeFiles() error {
	for _, d := range []string{"etc/libvirt/hooks", "lib/libvirt", "cache/libvirt", "log/libvirt/qemu"} {
		if err := os.MkdirAll(filepath.Join(h.Dir, d), 0o755); err != nil {
			return err
		}
	}
	conf, err := os.ReadFile(h.lab.Conf)
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		"etc/libvirt/libvirtd.conf": h.libvirtdConf(),
		"etc/libvirt/qemu.conf":     h.qemuConf(),
		"etc/libvirt/virtlogd.conf": virtlogdConf,
		"etc/hosts":                 h.lab.hostsFile(),
		"ceph.conf":                 string(conf),
		"no-kvm":                    "",
	} {
		if err := os.WriteFile(filepath.Join(h.Dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// holder is the process that makes the namespaces and keeps them when libvirtd
// is killed, so that its guests live on and the next libvirtd finds them.
func (h *Host) holder(guard *os.File) daemon {
	d := daemon{
		part:  h.part("holder"),
		argv:  []string{"sh", "-c", hostScript, "host", h.Dir, h.Name, h.lab.FSID, h.lab.Conf, h.lab.pki()},
		out:   filepath.Join(h.Dir, "log", "holder.out"),
		clone: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS,
	}
	if guard != nil {
		d.files = []*os.File{guard}
	}
	d.ready = func(context.Context) error {
		if h.lab.hostOf(h.lab.state.process(d.part).PID) != h.Name {
			return errors.New("its namespaces are not ready")
		}
		return nil
	}
	return d
}

func (h *Host) virtlogd() daemon {
	return daemon{
		part:  h.part("virtlogd"),
		argv:  h.enter("virtlogd"),
		out:   filepath.Join(h.Dir, "log", "virtlogd.out"),
		ready: func(context.Context) error { return h.hasSocket("virtlogd-sock") },
	}
}

func (h *Host) libvirtd() daemon {
	return daemon{
		part:  h.part("libvirtd"),
		argv:  h.enter("libvirtd", "--listen"),
		out:   filepath.Join(h.Dir, "log", "libvirtd.out"),
		log:   filepath.Join(h.Dir, "log", "libvirt", "libvirtd.log"),
		ready: h.answers,
	}
}

// enter returns the command line that runs a program on the host.
func (h *Host) enter(argv ...string) []string {
	holder := h.lab.state.process(h.part("holder"))
	return append([]string{"nsenter", "-t", strconv.Itoa(holder.PID), "-m", "-u", "--"}, argv...)
}

// Command returns a command that will run on the host: in its mount and UTS
// namespaces, as root. It sees the machine's files but for those that the host
// has of its own.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	argv := h.enter(append([]string{name}, args...)...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = "/"
	return cmd
}

// hasSocket says whether something listens on a socket in the host's
// /run/libvirt, reached through the holder's root.
func (h *Host) hasSocket(name string) error {
	holder := h.lab.state.process(h.part("holder"))
	conn, err := net.Dial("unix", fmt.Sprintf("/proc/%d/root/run/libvirt/%s", holder.PID, name))
	if err != nil {
		return err
	}
	return conn.Close()
}

// listens says whether libvirtd takes connections.
func (h *Host) listens() error {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(h.Addr, strconv.Itoa(h.port)), askTimeout)
	if err != nil {
		return err
	}
	return conn.Close()
}

// answers returns nil when libvirtd answers as this host.
func (h *Host) answers(ctx context.Context) error {
	if err := h.listens(); err != nil {
		return err
	}
	out, err := h.virsh(ctx, "hostname")
	if err != nil {
		return err
	}
	if name := strings.TrimSpace(string(out)); name != h.Name {
		return final(fmt.Errorf("%s says that it is %s", h.URI, name))
	}
	return nil
}

// offersOnlyQEMU proves that tools which choose the best machine type that
// libvirt offers choose one that works here.
func (h *Host) offersOnlyQEMU(ctx context.Context) error {
	out, err := h.virsh(ctx, "domcapabilities")
	if err != nil {
		return err
	}
	if !strings.Contains(string(out), "<domain>qemu</domain>") {
		return fmt.Errorf("%s does not offer machines of type qemu alone:%s", h.Name, lastLines(string(out)))
	}
	return nil
}

// virsh runs virsh against the host.
func (h *Host) virsh(ctx context.Context, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, readyDeadline)
	defer cancel()
	return run(ctx, append([]string{"virsh", "-q", "-c", h.URI}, args...)...)
}
