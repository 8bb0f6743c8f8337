/*
 * weir-cni: a chained CNI plugin that asks the node agent (CNI specification 1.1, "CNI operations").
 *
 * It forwards the CNI_* environment and standard input over the agent's Unix socket, with the time at which it was started,
 * and prints the agent's answer with the agent's exit status. It decides nothing but what happens when the agent is not there:
 *
 *   ADD             waits some seconds for an agent that restarts. Then it fails as CHECK and GC do at once:
 *   CHECK, GC       fail with code 11, "try again later": the pod waits, and does not start unguarded.
 *   STATUS          fails with code 50, "the plugin is not available".
 *   DEL             succeeds. All that the agent made is inside the pod's network namespace and ends with it; the note
 *                   that the agent keeps of the pod is found to be stale when the agent starts, and at the next GC.
 *   VERSION         needs no agent.
 *
 * Static, because it runs on the node, with whatever C library is there. No memory is allocated: there is one buffer for
 * what is sent and one for what comes back.
 *
 * On the wire, lengths in network byte order:
 *   to the agent    u32 length, "CNI_X=value" and "WEIR_BEGAN=nanoseconds of the monotonic clock", each with a NUL;
 *                   u32 length, standard input
 *   from the agent  u32 exit status, u32 length, what to print
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef WEIR_SOCKET
#define WEIR_SOCKET "/run/weir/agent/cni.sock"
#endif
/* Less than the four minutes that the kubelet gives the making of a sandbox, so that our words are the ones to be seen. */
#ifndef WEIR_SECONDS
#define WEIR_SECONDS 60
#endif
/* How long ADD waits for an agent to appear. A runtime that is told to try again later does so after ten seconds or more. */
#ifndef WEIR_AWAY_SECONDS
#define WEIR_AWAY_SECONDS 10
#endif
#define MAX_BYTES (1024 * 1024)

enum { INVALID_ENVIRONMENT = 4, IO_FAILURE = 5, DECODING_FAILURE = 6, TRY_AGAIN_LATER = 11, NOT_AVAILABLE = 50 };

extern char **environ;

static char request[4 + MAX_BYTES + 4 + MAX_BYTES];
static char answer[MAX_BYTES];
static char version[16] = "1.1.0";
static char timed_out[1024];

static int write_all(int fd, const char *data, size_t length)
{
	while (length > 0) {
		ssize_t done = write(fd, data, length);
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return -1;
		data += done;
		length -= (size_t)done;
	}
	return 0;
}

/* Reads until the end or until `size` bytes are there; how many, or -1. */
static ssize_t read_up_to(int fd, char *data, size_t size)
{
	size_t have = 0;
	while (have < size) {
		ssize_t got = read(fd, data + have, size - have);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -1;
		if (got == 0)
			break;
		have += (size_t)got;
	}
	return (ssize_t)have;
}

/* The text of a CNI error. All arguments are our own words or strerror's: nothing in them needs to be quoted. */
static int error_text(char *into, size_t size, int code, const char *message, const char *details)
{
	return snprintf(into, size, "{\"cniVersion\":\"%s\",\"code\":%d,\"msg\":\"%s\",\"details\":\"%s\"}\n", version, code,
			message, details);
}

static int fail(int code, const char *message, const char *details)
{
	char text[1024];
	int length = error_text(text, sizeof text, code, message, details);
	write_all(STDOUT_FILENO, text, (size_t)length);
	return 1;
}

static int unreachable(const char *command, const char *details)
{
	if (strcmp(command, "DEL") == 0)
		return 0;
	int code = strcmp(command, "STATUS") == 0 ? NOT_AVAILABLE : TRY_AGAIN_LATER;
	return fail(code,
		    "the Weir node agent at " WEIR_SOCKET " does not answer; the DaemonSet weir-node runs it; where Weir is not"
		    " installed any more, take the entry weir-cni out of the node's CNI configuration list",
		    details);
}

static void on_alarm(int number)
{
	(void)number;
	write_all(STDOUT_FILENO, timed_out, strlen(timed_out));
	_exit(1);
}

/* What the configuration says of its version; our answers must say the same. Anything that is no version is ignored. */
static void find_version(const char *config, size_t length)
{
	static const char key[] = "\"cniVersion\"";
	const char *end = config + length;
	const char *at = memmem(config, length, key, sizeof key - 1);
	if (at == NULL)
		return;
	at += sizeof key - 1;
	while (at < end && strchr(" \t\r\n:", *at) != NULL && *at != '\0')
		at++;
	if (at == end || *at++ != '"')
		return;
	size_t size = 0;
	while (at + size < end && size < sizeof version && strchr("0123456789.", at[size]) != NULL && at[size] != '\0')
		size++;
	if (size == 0 || size >= sizeof version || at + size == end || at[size] != '"')
		return;
	memcpy(version, at, size);
	version[size] = '\0';
}

static void put_length(char *at, size_t length)
{
	uint32_t wire = htonl((uint32_t)length);
	memcpy(at, &wire, sizeof wire);
}

static uint32_t get_length(const char *at)
{
	uint32_t wire;
	memcpy(&wire, at, sizeof wire);
	return ntohl(wire);
}

/* Writes when we began and the CNI_* variables behind their length; where the next part begins, or 0 if there is no room. */
static size_t put_environment(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	size_t length = (size_t)sprintf(request + 4, "WEIR_BEGAN=%lld%09ld", (long long)now.tv_sec, now.tv_nsec) + 1;
	for (char **entry = environ; *entry != NULL; entry++) {
		size_t size = strlen(*entry) + 1;
		if (strncmp(*entry, "CNI_", 4) != 0)
			continue;
		if (size > MAX_BYTES - length)
			return 0;
		memcpy(request + 4 + length, *entry, size);
		length += size;
	}
	put_length(request, length);
	return 4 + length;
}

static int connect_to_agent(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = WEIR_SOCKET};
	_Static_assert(sizeof WEIR_SOCKET <= sizeof address.sun_path, "the path of the agent's socket is too long");
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
		int reason = errno;
		close(fd);
		errno = reason;
		return -1;
	}
	return fd;
}

/* One attempt. NULL: there is an answer of this status and size, which is read if it is one. Otherwise why there is none. */
static const char *attempt(size_t length, uint32_t *status, uint32_t *size)
{
	char head[8];
	const char *wrong = NULL;
	int fd = connect_to_agent();
	if (fd < 0)
		return strerror(errno);
	if (write_all(fd, request, length) != 0 || shutdown(fd, SHUT_WR) != 0 ||
	    read_up_to(fd, head, sizeof head) != (ssize_t)sizeof head) {
		wrong = "it ended before it had answered";
	} else {
		*status = get_length(head);
		*size = get_length(head + 4);
		if (*size <= MAX_BYTES && read_up_to(fd, answer, *size) != (ssize_t)*size)
			wrong = "it ended in the middle of its answer";
	}
	close(fd);
	return wrong;
}

static int ask(const char *command, size_t length)
{
	static const struct timespec tenth = {.tv_nsec = 100 * 1000 * 1000};
	int attempts = strcmp(command, "ADD") == 0 ? 10 * WEIR_AWAY_SECONDS : 0;
	uint32_t status = 0, size = 0;
	const char *wrong;
	while ((wrong = attempt(length, &status, &size)) != NULL) {
		if (attempts-- <= 0)
			return unreachable(command, wrong);
		nanosleep(&tenth, NULL);
	}
	if (size > MAX_BYTES || status > 125)
		return fail(DECODING_FAILURE, "the Weir node agent's answer is not understood", "too long, or no exit status");
	alarm(0);
	return write_all(STDOUT_FILENO, answer, size) == 0 ? (int)status : 1;
}

int main(void)
{
	const char *command = getenv("CNI_COMMAND");
	if (command == NULL)
		return fail(INVALID_ENVIRONMENT, "CNI_COMMAND is not set", "this is a CNI plugin; container runtimes run it");
	size_t length = put_environment();
	if (length == 0)
		return fail(INVALID_ENVIRONMENT, "the CNI_ variables are longer than a mebibyte", "");
	char *config = request + length + 4;
	ssize_t size = read_up_to(STDIN_FILENO, config, MAX_BYTES);
	char beyond;
	if (size < 0)
		return fail(IO_FAILURE, "standard input cannot be read", strerror(errno));
	if (size == MAX_BYTES && read_up_to(STDIN_FILENO, &beyond, 1) != 0)
		return fail(DECODING_FAILURE, "the network configuration is longer than a mebibyte", "");
	find_version(config, (size_t)size);
	if (strcmp(command, "VERSION") == 0) {
		printf("{\"cniVersion\":\"%s\",\"supportedVersions\":[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n",
		       version);
		return fflush(stdout) == 0 ? 0 : 1;
	}
	put_length(config - 4, (size_t)size);
	error_text(timed_out, sizeof timed_out, TRY_AGAIN_LATER, "the Weir node agent gave no answer in time",
		   "its log may say why: kubectl logs of the DaemonSet weir-node");
	signal(SIGPIPE, SIG_IGN);
	signal(SIGALRM, on_alarm);
	alarm(WEIR_SECONDS);
	return ask(command, length + 4 + (size_t)size);
}
