//! A sample-rate converter from three samples to two (48 kHz to 32 kHz, say), in fixed point.
//!
//! It is a polyphase FIR filter: each output is one of two sets of 24 coefficients applied to the last 24 inputs. Those inputs and the
//! position between them are state that lives from one job to the next, so a context that was lost, or mixed with another
//! domain's, can't go unnoticed: everything that follows is wrong.

/// Outputs for each [`DOWN`] inputs.
pub const UP: usize = 2;
/// Inputs for each [`UP`] outputs.
pub const DOWN: usize = 3;
/// Coefficients of each phase, and inputs that an output depends on.
pub const TAPS: usize = 24;

/// A low-pass of 48 taps at the upsampled rate: sinc with its edge at 0.307 of the input rate under a Blackman window, in Q15, each
/// phase summing to 1 exactly. 0 dB up to 0.2 of the input rate, below -48 dB from 0.4 on.
const COEFFICIENTS: [i16; UP * TAPS] = [
    0, 1, 9, 16, -2, -53, -87, -26, 141, 278, 164, -257, -675, -562, 305, 1373, 1501, -50, -2548,
    -3734, -1248, 5343, 13582, 19297, 19297, 13582, 5343, -1248, -3734, -2548, -50, 1501, 1373,
    305, -562, -675, -257, 164, 278, 141, -26, -87, -53, -2, 16, 9, 1, 0,
];

/// The converter's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resampler {
    /// The last inputs, a ring.
    history: [i16; TAPS],
    /// Where the next input goes.
    next: usize,
    /// Steps at the upsampled rate until the next output.
    countdown: usize,
}

impl Default for Resampler {
    fn default() -> Self {
        Self {
            history: [0; TAPS],
            next: 0,
            countdown: 0,
        }
    }
}

impl Resampler {
    /// Takes one input; gives the output that it completes, if it does.
    pub fn push(&mut self, sample: i16) -> Option<i16> {
        self.history[self.next] = sample;
        self.next = (self.next + 1) % TAPS;
        let mut output = None;
        for phase in 0..UP {
            if self.countdown == 0 {
                output = Some(self.output(phase));
                self.countdown = DOWN;
            }
            self.countdown -= 1;
        }
        output
    }

    fn output(&self, phase: usize) -> i16 {
        let mut sum = 0_i64;
        for tap in 0..TAPS {
            // The newest input meets the first coefficient.
            let sample = self.history[(self.next + TAPS - 1 - tap) % TAPS];
            sum += i64::from(sample) * i64::from(COEFFICIENTS[phase + UP * tap]);
        }
        let rounded = (sum + (1 << 14)) >> 15;
        rounded.clamp(i64::from(i16::MIN), i64::from(i16::MAX)) as i16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn convert(resampler: &mut Resampler, samples: &[i16]) -> Vec<i16> {
        samples.iter().filter_map(|s| resampler.push(*s)).collect()
    }

    fn tone(frequency: f64, amplitude: f64) -> Vec<i16> {
        let angle = |n: usize| 2.0 * std::f64::consts::PI * frequency * n as f64;
        (0..3000)
            .map(|n| (amplitude * angle(n).sin()) as i16)
            .collect()
    }

    /// Root mean square, without the first outputs, which see the silence before.
    fn loudness(samples: &[i16]) -> f64 {
        let samples = &samples[64..];
        let sum: f64 = samples.iter().map(|s| f64::from(*s).powi(2)).sum();
        (sum / samples.len() as f64).sqrt()
    }

    #[test]
    fn three_samples_become_two_and_a_constant_stays_itself() {
        let output = convert(&mut Resampler::default(), &[12345; 3000]);
        assert_eq!(output.len(), 2000);
        assert!(output[TAPS..].iter().all(|sample| *sample == 12345));
    }

    #[test]
    fn low_tones_pass_and_what_would_alias_does_not() {
        let heard = |frequency| {
            loudness(&convert(
                &mut Resampler::default(),
                &tone(frequency, 16000.0),
            ))
        };
        let full = 16000.0 / std::f64::consts::SQRT_2;
        for frequency in [0.01, 0.1, 0.2] {
            let gain = heard(frequency) / full;
            assert!((0.98..1.02).contains(&gain), "{frequency}: {gain}");
        }
        for frequency in [0.4, 0.45, 0.49] {
            let gain = heard(frequency) / full;
            assert!(gain < 0.005, "{frequency}: {gain}");
        }
    }

    #[test]
    fn a_tone_keeps_its_frequency() {
        // 0.05 of the input rate is 0.075 of the output rate: 75 periods, so 150 changes of sign, in 1000 outputs.
        let output = convert(&mut Resampler::default(), &tone(0.05, 16000.0));
        let changes = output[500..1500]
            .windows(2)
            .filter(|pair| (pair[0] < 0) != (pair[1] < 0))
            .count();
        assert!((149..=151).contains(&changes), "{changes}");
    }

    #[test]
    fn the_loudest_square_wave_saturates() {
        let samples: Vec<i16> = (0..600)
            .map(|n| if n / 30 % 2 == 0 { i16::MAX } else { i16::MIN })
            .collect();
        let output = convert(&mut Resampler::default(), &samples);
        assert!(output.contains(&i16::MAX) && output.contains(&i16::MIN));
    }

    proptest! {
        #[test]
        fn pieces_make_the_whole(samples in prop::collection::vec(any::<i16>(), 0..300), cut in 0usize..300) {
            let cut = cut.min(samples.len());
            let whole = convert(&mut Resampler::default(), &samples);
            let mut resampler = Resampler::default();
            let mut parts = convert(&mut resampler, &samples[..cut]);
            parts.extend(convert(&mut resampler, &samples[cut..]));
            prop_assert_eq!(whole, parts);
        }

        #[test]
        fn a_lost_context_shows(samples in prop::collection::vec(-20000i16..20000, 90..91)) {
            prop_assume!(samples[20..30].iter().any(|s| s.abs() > 2000));
            let mut kept = Resampler::default();
            convert(&mut kept, &samples[..30]);
            let mut lost = Resampler::default();
            prop_assert_ne!(convert(&mut kept, &samples[30..]), convert(&mut lost, &samples[30..]));
        }
    }
}
