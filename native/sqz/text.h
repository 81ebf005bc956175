/* Text. */
#ifndef SQZ_TEXT_H
#define SQZ_TEXT_H

#include "basics.h"

/* Whether bytes are UTF-8: shortest forms only, and no surrogates. */
int sqz_is_utf8(Span text);

#endif
