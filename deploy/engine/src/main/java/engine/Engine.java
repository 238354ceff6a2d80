package engine;

import jakarta.servlet.Filter;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.web.servlet.FilterRegistrationBean;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Profile;

/** A process engine behind its REST API. It brings no process, no user and no web application. */
@SpringBootApplication
public class Engine {

  public static void main(String[] arguments) {
    SpringApplication.run(Engine.class, arguments);
  }

  /** HTTP Basic authentication on the whole REST API, with the profile {@code basic-auth} only. */
  @Bean
  @Profile("basic-auth")
  FilterRegistrationBean<Filter> authentication(
      @Value("${engine.authentication.filter}") Class<? extends Filter> filter,
      @Value("${engine.authentication.provider}") String provider) throws Exception {
    var registration = new FilterRegistrationBean<Filter>(filter.getConstructor().newInstance());
    registration.addInitParameter("authentication-provider", provider);
    registration.addUrlPatterns("/engine-rest/*");
    return registration;
  }
}
