/* SPDX-License-Identifier: MIT */
/* Connects to a port of 127.0.0.1, or to the path of a Unix domain socket, sends what it reads, and prints what comes
 * until the other side ends; its own end is said when the input ends. For tests of daemons. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int sending; /* something has been read that the other side does not take yet */

static int connected(const char *where) {
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(where))};
  struct sockaddr_un un = {.sun_family = AF_UNIX};
  const int local = strchr(where, '/') != NULL;
  in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (local) strncpy(un.sun_path, where, sizeof un.sun_path - 1);
  const int fd = socket(local ? AF_UNIX : AF_INET, SOCK_STREAM, 0);
  const struct sockaddr *to = local ? (struct sockaddr *)&un : (struct sockaddr *)&in;
  if (fd >= 0 && connect(fd, to, local ? sizeof un : sizeof in) == 0) return fd;
  perror(where);
  exit(2);
}

/* Sends what there is of the input; 0 when nothing more will be sent. */
static int send_some(int fd) {
  static char buffer[16384];
  static size_t begin, end;
  if (begin == end) {
    const ssize_t got = read(0, buffer, sizeof buffer);
    if (got <= 0) {
      shutdown(fd, SHUT_WR);
      return 0;
    }
    begin = 0;
    end = (size_t)got;
  }
  const ssize_t sent = send(fd, buffer + begin, end - begin, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent > 0) begin += (size_t)sent;
  sending = begin < end;
  return sent > 0 || errno == EAGAIN;
}

/* Prints what has come; whether more may. */
static int print_some(int fd) {
  char buffer[16384];
  const ssize_t got = read(fd, buffer, sizeof buffer);
  if (got < 0) exit(1);
  for (ssize_t done = 0, n; done < got; done += n)
    if ((n = write(1, buffer + done, (size_t)(got - done))) < 0) exit(1);
  return got > 0;
}

int main(int count, char **arguments) {
  if (count != 2) return 2;
  alarm(60); /* who hangs is a failure, and no test that never ends */
  struct pollfd both[] = {{connected(arguments[1]), POLLIN, 0}, {0, POLLIN, 0}};
  for (;;) {
    both[0].events = sending ? POLLIN | POLLOUT : POLLIN;
    if (poll(both, sending || both[1].fd < 0 ? 1 : 2, -1) < 0) return 2;
    if (both[0].revents & (POLLIN | POLLHUP | POLLERR) && !print_some(both[0].fd)) return 0;
    if ((sending ? both[0].revents & POLLOUT : both[1].fd >= 0 && both[1].revents) && !send_some(both[0].fd)) {
      both[1].fd = -1;
      sending = 0;
    }
  }
}
