/* UltraLight VM-UNet (Wu et al. 2024, arXiv 2403.20035) in C, without a library.

   One call segments one image. There is no global state and no allocation: the caller gives all memory, so that several
   threads can run at once. For research only; not a medical device. */
#ifndef MHSVM_ULTRALIGHT_H
#define MHSVM_ULTRALIGHT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The most widths and sizes that ultralight_check accepts. */
enum { ULTRALIGHT_MAX_CHANNELS = 512, ULTRALIGHT_MAX_STATE = 64, ULTRALIGHT_MAX_CONV = 8, ULTRALIGHT_MAX_CLASSES = 64 };

/* Arguments of the network; the names are those of mhsvm.create_model("ultralight_vm_unet", ...). */
typedef struct {
  int32_t in_channels, num_classes;
  int32_t channels[6];
  int32_t branches, d_state, d_conv, expand;
  int32_t bridge; /* 0 or 1 */
} ultralight_network;

/* 0, or the first rule that the network or the size of an image breaks; see ultralight_rule. */
int ultralight_check(const ultralight_network *network, int height, int width);
const char *ultralight_rule(int broken);

/* Number of floats of the weights, in the order of mhsvm.models.ultralight_weights. */
size_t ultralight_num_weights(const ultralight_network *network);

/* Number of floats of the scratch memory for one image; any alignment. */
size_t ultralight_num_scratch(const ultralight_network *network, int height, int width);

/* Segment one image: network, size and memory are those that the functions above accept and name.
   image: (height, width, in_channels), normalized as for training; logits: (num_classes, height, width). */
void ultralight_run(const ultralight_network *network, const float *weights, const float *image, int height, int width,
                    float *scratch, float *logits);

/* Normalization "minmax": the levels of an image are stretched to 0..255, all channels together. */
void ultralight_minmax(const uint8_t *pixels, float *image, size_t num);

/* In place: sigmoid of one class, or softmax over several; (num_classes, num). */
void ultralight_probability(float *logits, int num_classes, size_t num);

#ifdef __cplusplus
}
#endif
#endif
