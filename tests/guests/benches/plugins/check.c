/* A check as a small static helper: settings as JSON on stdin, report as JSON on stdout. What `src/many.rs` does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char settings[4096];

/* What follows a key, up to the end of its value; without quotes. */
static char *value(const char *key)
{
	char pattern[64], *start;
	size_t length;

	snprintf(pattern, sizeof(pattern), "\"%s\":", key);
	start = strstr(settings, pattern);
	if (!start)
		exit(1);
	start += strlen(pattern);
	start += strspn(start, " ");
	length = *start == '"' ? strcspn(++start, "\"") : strspn(start, "0123456789");
	return strndup(start, length);
}

int main(void)
{
	size_t length = 0;
	ssize_t got;
	char *driver, *oldest;

	while ((got = read(0, settings + length, sizeof(settings) - 1 - length)) > 0)
		length += got;
	driver = value("driver");
	oldest = value("oldest");
	printf("{\"findings\":[");
	if (atoi(driver) < atoi(oldest))
		printf("{\"message\":\"driver %s is older than branch %s\",\"remedy\":\"%s\"}", driver, oldest,
		       value("remedy"));
	printf("],\"evidence\":{\"driver\":\"%s\",\"product\":\"%s\"}}\n", driver, value("product"));
	return 0;
}
