// dirty RATE REGION writes to REGION bytes of memory, RATE bytes a second, page
// after page and over again, until the next one is started; a RATE of 0 only ends
// the one before. It returns once all of the region has been written.
//
// No page is ever written twice with the same bytes, and none can be compressed:
// each begins with MARKER and a number, and is random from there on.

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define TICK 10000000   /* nanoseconds between two bursts */
#define PATIENCE (NANO / 4) /* what is later than this is not made up for */
#define NANO 1000000000LL

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NANO + t.tv_nsec;
}

static void write_page(char *page, uint64_t number)
{
	uint64_t *words = (uint64_t *)page, x = number;

	for (int i = 0; i < PAGE / 8; i++)
		words[i] = x = x * 6364136223846793005u + 1442695040888963407u;
	memcpy(page, MARKER, sizeof MARKER - 1);
	memcpy(page + sizeof MARKER - 1, &number, sizeof number);
}

// alone ends the one that runs and keeps the lock that says who does. The lock of
// a dead process goes after its memory.
static void alone(void)
{
	struct flock lock = {.l_type = F_WRLCK};
	int fd = open("/run/dirty", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		fail("/run/dirty");
	if (fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK)
		kill(lock.l_pid, SIGKILL);
	lock = (struct flock){.l_type = F_WRLCK};
	if (fcntl(fd, F_SETLKW, &lock) != 0)
		fail("lock");
}

int main(int argc, char **argv)
{
	long long rate = argc == 3 ? atoll(argv[1]) : -1, region = argc == 3 ? atoll(argv[2]) : -1;
	long long began, written = 0;
	uint64_t pages = region / PAGE, number = now(); // no number comes back: a page takes more than 1 ns
	int ready[2];
	char *memory, c;

	if (rate < 0 || region < 0 || (rate > 0 && pages == 0)) {
		fprintf(stderr, "usage: dirty RATE REGION\n");
		return 1;
	}
	if (pipe(ready) != 0)
		fail("pipe");
	if (fork() != 0) { // who started this waits for the first round only
		close(ready[1]);
		return read(ready[0], &c, 1) == 1 ? 0 : 1;
	}
	alone();
	if (rate == 0)
		return write(ready[1], "", 1) != 1;
	memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		fail("memory");
	for (uint64_t i = 0; i < pages; i++)
		write_page(memory + i * PAGE, number++);
	if (write(ready[1], "", 1) != 1)
		fail("ready");
	for (int fd = 0; fd <= 2; fd++)
		close(fd); // the agent waits until nobody has its pipes

	for (began = now();; ) {
		const struct timespec tick = {.tv_nsec = TICK};
		long long elapsed = now() - began, owed = rate / 1000 * (elapsed / 1000) / 1000 - written;

		if (owed > rate / (NANO / PATIENCE)) { // the guest stood still, or cannot do more
			began = now(), written = 0;
			owed = rate / (NANO / TICK);
		}
		if (owed < PAGE)
			nanosleep(&tick, NULL);
		for (; owed >= PAGE; owed -= PAGE, written += PAGE)
			write_page(memory + number % pages * PAGE, number), number++;
	}
}
