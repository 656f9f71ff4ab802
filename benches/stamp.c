/* Tells a datagram socket when it began, in nanoseconds of the monotonic clock. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

int main(int argc, char **argv) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (argc != 2 || strlen(argv[1]) >= sizeof to.sun_path)
        return 64;
    strcpy(to.sun_path, argv[1]);
    char text[64];
    int n = snprintf(text, sizeof text, "%lld%09ld", (long long)now.tv_sec, now.tv_nsec);
    int s = socket(AF_UNIX, SOCK_DGRAM, 0);
    return sendto(s, text, n, 0, (struct sockaddr *)&to, sizeof to) == n ? 0 : 1;
}
